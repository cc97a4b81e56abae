"""Claims about the license of a base, read from a card that anybody may have written."""

import pytest

from job.config.sections import StorageSection
from job.model.license import License, base_license, license_in

STORAGE = StorageSection()


def card(front: str) -> bytes:
    return f"---\n{front}\n---\n# A base\nlicense: mit\n".encode()


@pytest.mark.parametrize(
    ("front", "found"),
    [
        ("license: apache-2.0", License("apache-2.0")),
        ("license: [mit]", License("mit")),
        (
            "license: other\nlicense_name: health-ai\nlicense_link: https://example.com/terms",
            License("other", "health-ai", "https://example.com/terms"),
        ),
        ("license: other\nlicense_link: LICENSE", License("other", None, "LICENSE")),
        ("tags: [x]", None),
        ("license: 'a\x1b[31m'", None),
        ("license: {a: b}", None),
        ("license: [", None),
        ("- a list", None),
        (
            "license: other\nlicense_name: '<script>'\nlicense_link: javascript:alert(1)",
            License("other"),
        ),
    ],
)
def test_a_license_is_what_the_hub_takes_for_one(front, found):
    assert license_in(card(front)) == found


def test_a_card_without_front_matter_names_no_license():
    assert license_in(b"# A base\nlicense: mit\n") is None
    assert license_in(b"") is None


def test_the_license_of_a_base_is_found_wherever_the_base_is(tmp_path, s3, hub):
    text = card("license: gemma")
    (tmp_path / "README.md").write_bytes(text)
    s3.client().put_object(Bucket=s3.bucket, Key="base/README.md", Body=text)
    hub.add("org/base", {"README.md": text})
    for uri in (str(tmp_path), f"{s3.uri}/base", "org/base"):
        assert base_license(uri, None, STORAGE) == License("gemma"), uri
    for uri in (str(tmp_path / "none"), f"{s3.uri}/none", "org/none"):
        assert base_license(uri, None, STORAGE) is None
