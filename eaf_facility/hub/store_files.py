"""Names of files that must not be in a user's model, because Triton would run or follow them.

Triton looks for the library of a model's backend, ``libtriton_<backend>.so``, in the version's directory and in the
model's before its own, and reads ``configs/<name>.pbtxt`` instead of ``config.pbtxt`` if it is started with
``--model-config-name``. The keys that users get for the store cannot write such files (`store_policy`), and a
configuration is not written beside one (`checked_config`).
"""

from __future__ import annotations

__all__ = ["CODE", "CONFIGS", "OWN_CODE", "TRAVERSAL", "harmful"]

# patterns of object names for S3 policies, in which * also stands for /
CONFIGS = ("*/config.pbtxt", "*/configs/*")
CODE = ("*libtriton_*", "*.so", "*.so.*")
OWN_CODE = ("*.py", "*.pyc", "*.pt2")  # Python, and what AOTInductor compiled
TRAVERSAL = ("*/../*", "*/./*", "*//*", "*/")


def harmful(name: str, *, python: bool) -> str:
    """Return what is wrong with a file below a model's directory, or nothing.

    Parameters
    ----------
    name : str
        Such as ``3/model.onnx``.
    python : bool
        Whether the owner may have models of the Python backend.
    """
    parts = name.split("/")
    last = parts[-1]
    if any(part in ("", ".", "..") for part in parts):
        return "whose name leads out of the model"
    if "libtriton_" in name or last.endswith(".so") or ".so." in last:
        return "which Triton may load as a library"
    if parts[0] == "configs":
        return "which Triton may read as another configuration"
    if not python and last.endswith(tuple(each[1:] for each in OWN_CODE)):
        return "which is code, and you may not have models that run their own code on the server"
    return ""
