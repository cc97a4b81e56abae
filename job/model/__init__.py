"""The base model and its adapter: fetch, verify, load, attach, save."""
