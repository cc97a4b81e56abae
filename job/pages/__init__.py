"""The page kit: pages for people, each one file that needs no network."""
