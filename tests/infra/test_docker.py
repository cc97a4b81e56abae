"""Claims about the image that its files show: its content, its user, and where it may write."""

import json
import re
import subprocess
import sys
from typing import Any

import pytest
import yaml
from docker.utils import exclude_paths

from job.gpus.required import OLDEST_DRIVERS
from job.inference.vllm_start import ENVIRONMENT
from tests.infra.images import INFRA, ROOT, lock

LOCKS = ("build", "torch", "train", "summarize", "s3")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
# What is written, by where: data that may outlive a job, and all else, code among it.
KEPT = ("HF_HUB_CACHE", "RECAP_CACHE")
FRESH = (
    "HOME",
    "TMPDIR",
    "RECAP_WORK",
    "XDG_CACHE_HOME",
    "HF_HOME",  # for modeling_*.py of bases, which are imported from there, and a token
    "TRITON_CACHE_DIR",
    "TORCHINDUCTOR_CACHE_DIR",
    "VLLM_CACHE_ROOT",
    "CUDA_CACHE_PATH",
)
PAGES = [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("infra/**/*.md")]


def stages() -> dict[str, list[tuple[str, str]]]:
    """The Dockerfile's instructions by stage; those before the first are under ''."""
    text = (ROOT / "Dockerfile").read_text()
    found: dict[str, list[tuple[str, str]]] = {"": []}
    stage = ""
    for line in re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", text)).splitlines():
        if not line.strip():
            continue
        word, rest = line.split(None, 1)
        if word == "FROM":
            stage = rest.split(" AS ")[1]
            found[stage] = []
        found[stage].append((word, " ".join(rest.split())))
    return found


def values(stage: str, word: str) -> list[str]:
    return [rest for instruction, rest in stages()[stage] if instruction == word]


def environment(stage: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for rest in values(stage, "ENV") for pair in rest.split())


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((INFRA / "compose.yaml").read_text())
    return found


def test_the_base_is_pinned_by_digest_in_one_place():
    assert [word for word, _ in stages()[""]] == ["ARG"]
    assert re.fullmatch(
        r"BASE_IMAGE=python:3\.11-slim-bookworm@sha256:[0-9a-f]{64}", stages()[""][0][1]
    )
    bases = {rest[0][1].split(" AS ")[0] for name, rest in stages().items() if name}
    assert bases <= {"--platform=linux/amd64 ${BASE_IMAGE}", *stages()}


def test_every_service_of_compose_is_for_the_platform_of_the_locks():
    for name, service in compose()["services"].items():
        assert service["platform"] == "linux/amd64", name


def test_every_build_on_a_page_names_the_platform_of_the_locks():
    builds = []
    for page in PAGES:
        text = re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))
        builds += re.findall(r"docker (?:buildx )?build [^`&\n]*", text)
    assert len(builds) >= 5
    assert not [build for build in builds if "--platform linux/amd64" not in build]


def test_another_machines_build_says_what_to_do(tmp_path):
    uname = tmp_path / "uname"
    uname.write_text("#!/bin/sh\necho aarch64\n")
    uname.chmod(0o755)
    command = ["sh", str(INFRA / "install.sh"), "/layer", "/locks/torch.txt"]
    path = f"{tmp_path}:/usr/bin:/bin"
    done = subprocess.run(command, env={"PATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "aarch64: add --platform linux/amd64 to docker build" in done.stderr


def run_install_gcc(tmp_path, compiles, **environment):
    """Run the script with a gcc that compiles or fails, and an apt-get that shows its proxy."""
    for name, script in {"gcc": f"exit {0 if compiles else 1}", "apt-get": "env; exit 100"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    environment["PATH"] = f"{tmp_path}:/usr/bin:/bin"
    command = ["sh", str(INFRA / "install-gcc.sh")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_base_with_gcc_asks_no_mirror_of_debian(tmp_path):
    done = run_install_gcc(tmp_path, compiles=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_apt_uses_the_proxy_of_the_build(tmp_path):
    done = run_install_gcc(tmp_path, compiles=False, HTTP_PROXY="http://proxy:3128", NO_PROXY="x")
    assert done.returncode == 100
    assert "http_proxy=http://proxy:3128" in done.stdout.splitlines()
    assert "no_proxy=x" in done.stdout.splitlines()


def test_large_downloads_are_shown():
    assert "--quiet" not in (INFRA / "install.sh").read_text()


def test_every_dependency_is_installed_by_a_hash():
    assert "--require-hashes" in (INFRA / "install.sh").read_text()
    for name in LOCKS:
        lines = (INFRA / "locks" / f"{name}.txt").read_text().splitlines()
        packages = [line for line in lines if not line.startswith("#")]
        assert packages, name
        for line in packages:
            assert re.fullmatch(r"[a-z0-9-]+==[0-9a-z.]+ --hash=sha256:[0-9a-f]{64}", line), (
                f"{name}: {line}"
            )


def test_the_image_has_the_versions_that_recap_is_tested_with():
    tested = {
        re.sub(r"\[.*\]", "", name): version
        for name, version in (
            line.split("==")
            for line in (ROOT / "requirements.lock").read_text().splitlines()
            if line[0] != "#"
        )
    }
    for name in LOCKS:
        for package, version in lock(name).items():
            assert tested.get(package, version) == version, f"{name}: {package}"
    for package in (
        "torch",
        "transformers",
        "trl",
        "peft",
        "bitsandbytes",
        "accelerate",
        "datasets",
        "boto3",
    ):
        assert package in lock("torch") | lock("train")


def test_no_layer_replaces_what_lies_below_it():
    torch, train, summarize, s3 = (
        set(lock(name)) for name in ("torch", "train", "summarize", "s3")
    )
    assert not torch & train
    assert not summarize & (torch | train)
    assert not s3 & (torch | train)


def test_only_torchs_layer_brings_cuda_and_only_summarize_has_vllm():
    assert any(name.startswith("nvidia-cudnn") for name in lock("torch"))
    cuda = [name for name in lock("train") if name.startswith(("nvidia-", "cuda-", "vllm"))]
    assert cuda == ["nvidia-ml-py"]  # only calls the driver, and has no library
    assert "vllm" in lock("summarize")


def test_the_image_has_no_package_that_it_cannot_use():
    sys.path.insert(0, str(INFRA))
    from lock import LEFT_OUT, Pinned, without_left_out

    assert not lock("summarize").keys() & LEFT_OUT.keys()
    resolved = {name: Pinned(name, "1", "0") for name in ["vllm", *LEFT_OUT]}
    assert list(without_left_out(resolved)) == ["vllm"]
    del resolved["tilelang"]
    with pytest.raises(SystemExit, match="tilelang: nothing asks for it any more"):
        without_left_out(resolved)


def test_no_change_of_the_source_installs_a_dependency_again():
    for name in ("builder", "torch", "libraries", "vllm", "moto"):
        copied = " ".join(values(name, "COPY"))
        assert "job" not in copied
        assert "pyproject" not in copied
    for target in ("train", "summarize"):
        assert values(target, "COPY")[-1] == "--from=recap /layer /opt/recap"


@pytest.mark.parametrize("target", ["train", "summarize"])
def test_a_target_starts_its_command_and_takes_the_config_as_its_argument(target):
    assert json.loads(values(target, "ENTRYPOINT")[0]) == ["recap", target]
    assert not values(target, "CMD")


def test_the_last_target_is_train():
    assert list(stages())[-1] == "train"


def test_it_runs_as_nobody_in_particular():
    assert values("job", "USER") == ["10001:10001"]
    assert not any(values(target, "USER") for target in ("train", "summarize", "s3"))


def test_all_that_is_written_is_on_the_one_mount():
    settings = environment("job")
    for name in (*KEPT, *FRESH):
        assert settings[name] == "/work" or settings[name].startswith("/work/"), name
    assert settings["TMPDIR"] == "/work"  # it must be there before anything runs
    assert settings["LOGNAME"]  # a user id without a name has one
    assert settings["PYTHONSAFEPATH"] == "1"  # the mount is also the current folder


def test_only_data_is_kept_between_jobs():
    settings = environment("job")
    assert all(settings[name].startswith("/work/cache/") for name in KEPT)
    assert not [name for name in FRESH if settings[name].startswith("/work/cache")]
    written = {name for name, value in settings.items() if value.startswith("/work")}
    assert written == {*KEPT, *FRESH}


def test_no_file_of_the_mount_names_a_command_for_credentials():
    settings = environment("job")
    assert settings["AWS_CONFIG_FILE"] == "/dev/null"
    assert settings["AWS_SHARED_CREDENTIALS_FILE"] == "/dev/null"


def test_the_drivers_libraries_are_found_where_gke_mounts_them():
    settings = environment("job")
    folders = settings["LD_LIBRARY_PATH"].split(":")
    assert folders == ["/usr/local/nvidia/lib64", "/usr/local/nvidia/lib"]
    assert settings["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"


def test_the_labels_name_the_driver_and_gpus_of_torchs_cuda():
    cuda = int(lock("torch")["nvidia-cuda-runtime"].split(".")[0])
    driver = OLDEST_DRIVERS[cuda]
    capability = {13: "7.5"}[cuda]  # CUDA 13 has no code for older ones
    labels = " ".join(values("job", "LABEL"))
    assert f'recap.gpu.driver=">={driver}"' in labels
    assert f'recap.gpu.compute-capability=">={capability}"' in labels
    pages = (INFRA / "README.md").read_text(encoding="utf-8")
    assert f"driver {driver} or newer" in " ".join(pages.split())


def test_vllm_does_not_ask_for_flashinfer():
    assert ENVIRONMENT["VLLM_USE_FLASHINFER_SAMPLER"] == "0"
    assert environment("job")["VLLM_USE_FLASHINFER_SAMPLER"] == "0"


def test_an_image_gets_no_more_than_finished_layers_from_the_builder():
    for target in ("job", "summarize", "train", "s3"):
        assert not values(target, "RUN"), target
        for copied in values(target, "COPY"):
            assert (
                copied.endswith("/layer /opt/recap") or copied == "infra/docker/s3.py /opt/recap/"
            ), copied


def test_pips_settings_are_mounted_as_secrets_and_never_an_argument():
    names = [
        rest.split("=")[0]
        for stage in stages()
        for word in ("ARG", "ENV")
        for rest in values(stage, word)
    ]
    assert not [
        name for name in names if re.search("TOKEN|SECRET|PASSWORD|KEY|PIP|CERT|INDEX", name)
    ]
    for stage in ("builder", "torch", "libraries", "vllm", "moto"):
        assert all(
            "--mount=type=secret,id=pip_ca --mount=type=secret,id=pip_conf" in run
            for run in values(stage, "RUN")
        )


@pytest.mark.parametrize("target", ["train", "summarize"])
def test_an_image_says_what_it_is(target):
    labels = " ".join(values(target, "LABEL"))
    for key in ("title", "description", "licenses", "version", "revision", "created", "base.name"):
        assert f"org.opencontainers.image.{key}=" in labels
    assert 'base.name="${BASE_IMAGE}"' in labels, (
        "with its digest, and a mirror's where that was the base"
    )
    assert values(target, "ARG")[0] == "BASE_IMAGE", "or it is empty in this stage"


def test_only_what_the_image_is_made_of_goes_to_the_builder(tmp_path):
    wanted = {
        "pyproject.toml", "README.md", "LICENSE", "job/cli.py", "examples/demo/train.yaml",
        "infra/docker/s3.py", "infra/docker/install.sh", "infra/docker/locks/train.txt",
        "infra/docker/install-gcc.sh",
    }  # fmt: skip
    unwanted = {
        ".git/config", ".venv/bin/python", ".env", ".aws/credentials", "demo-run/logs/train.log",
        "key.pem", "build/pip.conf", "tests/test_cli.py", "infra/docker/compose.yaml",
        "job/__pycache__/cli.cpython-311.pyc",
        "shared/data/tweets.json", "work/cache/model.safetensors", "docs/architecture.md",
    }  # fmt: skip
    for name in wanted | unwanted:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    patterns = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.strip() and not line.startswith("#")
    ]
    sent = {name for name in exclude_paths(str(tmp_path), patterns) if (tmp_path / name).is_file()}
    assert sent - {"Dockerfile", ".dockerignore"} == wanted


def test_what_the_dockerfile_copies_is_sent_to_the_builder():
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    patterns = (ROOT / ".dockerignore").read_text().splitlines()
    sent = exclude_paths(
        str(ROOT), [line for line in patterns if line.strip() and not line.startswith("#")]
    )
    for stage in stages():
        for copied in values(stage, "COPY"):
            for source in copied.split()[:-1]:
                if "--from" in copied or "$" in source:
                    continue
                assert source in sent, source
                assert any(
                    name == source or name.startswith(f"{source.rstrip('/')}/") for name in tracked
                ), source


@pytest.mark.parametrize(
    "name", ["train", "train-cpu", "summarize", "summarize-cpu", "tensorboard"]
)
def test_a_service_runs_as_strictly_as_a_cluster_would_run_it(name):
    service = compose()["services"][name]
    assert service["init"] is True  # or a stop while Python starts is lost
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["volumes"] == ["/work", "cache:/work/cache"]  # the first is new each time
    assert service["user"].endswith("10001:10001}")


def test_compose_gives_a_gpu_to_the_jobs_and_has_each_without():
    services = compose()["services"]
    for name in ("train", "summarize"):
        with_gpu = dict(services[name])
        assert with_gpu.pop("gpus") == "all"
        with_gpu["environment"] = dict(with_gpu["environment"])
        assert with_gpu["environment"].pop("RECAP_GPUS") == "required"
        assert services[f"{name}-cpu"] == with_gpu


def test_compose_passes_the_proxies_on_where_they_are_set():
    services = compose()["services"]
    for name in ("train", "summarize", "s3"):
        arguments = services[name]["build"]["args"]
        for proxy in PROXIES:
            assert proxy in arguments, name
            assert arguments[proxy] is None, "taken from where compose runs"
    settings = services["train"]["environment"]
    assert settings["HTTPS_PROXY"] is None
    assert settings["NO_PROXY"].startswith("s3,"), "the demo's store is not behind the proxy"


def test_nothing_that_compose_starts_is_reachable_from_outside():
    ports = [
        port for service in compose()["services"].values() for port in service.get("ports", [])
    ]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_no_secret_stands_in_compose():
    settings = compose()["services"]["train"]["environment"]
    assert settings["HF_TOKEN"] is None  # taken from where compose runs
    assert settings["AWS_SESSION_TOKEN"] is None
    assert settings["AWS_SECRET_ACCESS_KEY"] == "${AWS_SECRET_ACCESS_KEY:-demo}"
