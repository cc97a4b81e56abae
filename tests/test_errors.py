"""Claims about what counts as a lack of memory: every shape in which libraries report it."""

import errno

import pytest
import torch

from job.errors import ConfigError, is_out_of_memory

CUDA = "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"
CUBLAS = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
NO_HANDLE = "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"
NO_SOLVER = "cusolver error: CUSOLVER_STATUS_NOT_INITIALIZED, when calling `cusolverDnCreate`"
NEEDED = (
    "To serve at least one request with the model's max seq len (2097152), (64.0 GiB KV cache is "
    "needed, which is larger than the available KV cache memory (3.1 GiB). Based on the available"
)
NCCL = "NCCL error in: NCCLUtils.cpp:77, unhandled cuda error. Last error:\n"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"),
        torch.OutOfMemoryError("on purpose"),
        torch.AcceleratorError(CUDA),
        RuntimeError(CUDA),
        RuntimeError("CUDA driver error: out of memory"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("HIP out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.05 GB)"),
        RuntimeError("cuMemCreate failed: CUDA_ERROR_OUT_OF_MEMORY"),
        RuntimeError(CUBLAS),
        torch.AcceleratorError(CUBLAS),
        RuntimeError(NO_HANDLE),
        torch.AcceleratorError(NO_HANDLE),
        RuntimeError(NO_HANDLE.replace("cublasCreate", "cublasLtCreate")),
        RuntimeError(NO_SOLVER),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("CUDA error: CUSPARSE_STATUS_ALLOC_FAILED when calling"),
        RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
        torch.distributed.DistBackendError(NCCL + "Cuda failure 2 'out of memory'"),
        torch.distributed.DistBackendError(NCCL + "Failed to CUDA calloc async 608 bytes"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        RuntimeError("unable to mmap 9 bytes from file <w>: Cannot allocate memory (12)"),
        RuntimeError("std::bad_alloc"),
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        # vLLM's, where it starts.
        ValueError("No available memory for the cache blocks. Try increasing `gpu_memory_util"),
        ValueError(NEEDED),
        ValueError("Free memory on device cuda:0 (3.1/22.0 GiB) on startup is less than desired"),
        # vLLM's, of one of several processes.
        RuntimeError("Worker failed with error 'CUDA out of memory. Tried to allocate 2.00 GiB'"),
    ],
    ids=lambda error: f"{type(error).__name__}: {str(error)[:40]}",
)
def test_memory_that_ran_out_is_known_whatever_class_reports_it(error):
    assert is_out_of_memory(error)


def caused_by(cause: Exception, outer: Exception) -> Exception:
    outer.__cause__ = cause
    return outer


def test_an_error_of_a_library_that_memory_caused_is_a_lack_of_it():
    wrapped = caused_by(torch.OutOfMemoryError("2 GiB"), KeyError("layer"))
    assert is_out_of_memory(wrapped)
    assert is_out_of_memory(caused_by(wrapped, RuntimeError("the engine is dead")))
    # What recap raised is its own verdict, whatever caused it.
    assert not is_out_of_memory(caused_by(MemoryError(), ConfigError("lower lora.r")))


def raised_while_handling(first: Exception, second: Exception, is_hidden: bool) -> Exception:
    try:
        try:
            raise first
        except Exception:
            if is_hidden:
                raise second from None
            raise second  # noqa: B904
    except Exception as error:
        return error


def test_an_error_while_memory_is_short_is_that_lack_unless_hidden():
    memory = torch.OutOfMemoryError("2 GiB")
    assert is_out_of_memory(raised_while_handling(memory, KeyError("layer"), is_hidden=False))
    assert not is_out_of_memory(raised_while_handling(memory, KeyError("layer"), is_hidden=True))
    assert not is_out_of_memory(raised_while_handling(memory, ConfigError("r"), is_hidden=False))


def test_what_the_allocator_of_this_host_raises_is_known():
    with pytest.raises(RuntimeError, match="allocate") as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    with pytest.raises(MemoryError) as python:
        bytearray(1 << 60)
    assert is_out_of_memory(python.value)


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: misaligned address"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasSgemm`"),
        torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"),
        RuntimeError("NCCL error: unhandled system error"),
        RuntimeError("out of resource: shared memory, Required: 132096, Hardware limit: 101376"),
        RuntimeError("Sizes of tensors must match except in dimension 1"),
        ValueError("ran out of memory of the conversation"),
        ConfigError("one conversation alone is out of memory"),
        ValueError("the memory of the cache blocks is not a multiple of 16"),
        KeyError("out of memory"),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
    ids=lambda error: f"{type(error).__name__}: {str(error)[:40]}",
)
def test_an_error_that_only_mentions_memory_is_none(error):
    assert not is_out_of_memory(error)
