"""Ask how much room the weights of a base take, before any is fetched.

By the sizes of the files and the layout of the caches, with no byte of a weight read.
"""

from dataclasses import dataclass
from pathlib import Path

from job.config.sections import StorageSection
from job.identity import sha256_of
from job.model.fetch import open_base
from job.model.files import CONFIG, check_names, hub_id_of, read_json
from job.storage.digests import HUB_BLOBS


@dataclass(frozen=True)
class MissingWeights:
    """The folder that a fetch of a base writes to, and the bytes of weights that it lacks.

    `parameters` is a count by the sizes of all weight files, `total` in bytes, and the data type of
    config.json. A base `is_local` in a folder, which is never fetched.
    """

    folder: Path
    size: int
    parameters: int
    total: int
    is_local: bool = False


def missing_weights(
    uri: str, revision: str | None, storage: StorageSection, cache: Path
) -> MissingWeights:
    """Return what `fetch_base` would write with this cache. Raise what `open_base` raises.

    A weight file counts as there if the cache has a file of its size.
    """
    store, files = open_base(uri, revision, storage)
    sizes = {name: files.sizes[name] for name in check_names(files)}
    config = read_json(files, CONFIG)
    dtype = config.get("dtype") or config.get("torch_dtype")
    total = sum(sizes.values())
    parameters = total // (4 if dtype == "float32" else 2)
    hub_id = hub_id_of(uri, revision)
    if store is None:
        return MissingWeights(Path(uri), 0, parameters, total, is_local=True)
    if hub_id is not None:
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name

        folder = Path(constants.HF_HUB_CACHE)
        blobs = folder / repo_folder_name(repo_id=hub_id, repo_type="model") / HUB_BLOBS
        found = [path.stat().st_size for path in blobs.glob("*")]
    else:
        folder = cache / sha256_of(uri)[:16]
        found = [path.stat().st_size for path in folder.glob("*.safetensors")]
    lacking = sum(size for size in sizes.values() if size not in found)
    return MissingWeights(folder, lacking, parameters, total)
