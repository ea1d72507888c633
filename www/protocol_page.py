"""Make the page `reference/protocol.md` of the documentation site out of the protos and their comments.

mkdocs calls `on_files` (mkdocs.yml, hooks), so the page is as new as the protos are whenever the site is built.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc_tools
from google.protobuf import descriptor_pb2
from grpc_tools import protoc
from mkdocs.structure.files import File, Files

PROTOS = Path(__file__).parent.parent / "protos"
INTRODUCTION = """# The protocol

Every service, method, message and field, as [protos/](../protos/README.md) has them. What errors say is in
[errors](../docs/errors.md).
"""
FILE, MESSAGE = descriptor_pb2.FileDescriptorProto, descriptor_pb2.DescriptorProto
ENUM, SERVICE = descriptor_pb2.EnumDescriptorProto, descriptor_pb2.ServiceDescriptorProto
Field = descriptor_pb2.FieldDescriptorProto
Place = tuple[int, ...]
"""Where something is in a descriptor, as comments are filed: numbers of fields, and positions in them, in turn."""


def on_files(files: Files, config: Any) -> Files:
    """Add the page to the site's files."""
    files.append(File.generated(config, "reference/protocol.md", content=page()))
    return files


def page() -> str:
    """Return the page, as Markdown."""
    return "\n".join([INTRODUCTION, *(line for file in described() for line in Section(file).lines())])


def described() -> list[Any]:
    """Return the descriptors of our protos, with their comments."""
    protos = sorted((PROTOS / "vmmr").rglob("*.proto"))
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    with tempfile.NamedTemporaryFile(suffix=".pb") as out:
        flags = ["--include_source_info", f"-I{PROTOS}", f"-I{well_known}", f"--descriptor_set_out={out.name}"]
        if protoc.main(["protoc", *flags, *map(str, protos)]) != 0:
            raise RuntimeError("protoc failed: is there a mistake in protos/?")
        return list(descriptor_pb2.FileDescriptorSet.FromString(Path(out.name).read_bytes()).file)


class Section:
    """The part of the page about one proto file."""

    def __init__(self, file: Any) -> None:
        self._file = file
        places = file.source_code_info.location
        self._comments = {tuple(place.path): place.leading_comments.strip() for place in places}

    def lines(self) -> Iterator[str]:
        yield f"## {self._file.package}\n"
        yield f"[{self._file.name}](../protos/{self._file.name})\n"
        for number, service in enumerate(self._file.service):
            path = (FILE.SERVICE_FIELD_NUMBER, number)
            yield from self._table(service.name, path, "method", self._methods(service, path))
        for number, message in enumerate(self._file.message_type):
            yield from self._message(message, "", (FILE.MESSAGE_TYPE_FIELD_NUMBER, number))
        for number, enum in enumerate(self._file.enum_type):
            yield from self._enum(enum, "", (FILE.ENUM_TYPE_FIELD_NUMBER, number))

    def _message(self, message: Any, outer: str, path: Place) -> Iterator[str]:
        name = outer + message.name
        yield from self._table(name, path, "field", self._fields(message, path))
        for number, inner in enumerate(message.nested_type):
            if not inner.options.map_entry:
                yield from self._message(inner, f"{name}.", (*path, MESSAGE.NESTED_TYPE_FIELD_NUMBER, number))
        for number, inner in enumerate(message.enum_type):
            yield from self._enum(inner, f"{name}.", (*path, MESSAGE.ENUM_TYPE_FIELD_NUMBER, number))

    def _enum(self, enum: Any, outer: str, path: Place) -> Iterator[str]:
        values = (
            self._row(value.name, str(value.number), (*path, ENUM.VALUE_FIELD_NUMBER, number))
            for number, value in enumerate(enum.value)
        )
        yield from self._table(outer + enum.name, path, "value", values)

    def _table(self, name: str, path: Place, column: str, rows: Iterator[str]) -> Iterator[str]:
        yield f"### {name}\n"
        yield self._comments[path] + "\n"
        if written := list(rows):
            yield f"| {column} | | |\n|---|---|---|\n" + "\n".join(written) + "\n"

    def _methods(self, service: Any, path: Place) -> Iterator[str]:
        for number, method in enumerate(service.method):
            types = f"{short(method.input_type)} → {short(method.output_type)}"
            yield self._row(method.name, types, (*path, SERVICE.METHOD_FIELD_NUMBER, number))

    def _fields(self, message: Any, path: Place) -> Iterator[str]:
        maps = {entry.name: entry for entry in message.nested_type if entry.options.map_entry}
        for number, field in enumerate(message.field):
            yield self._row(field.name, type_of(field, maps), (*path, MESSAGE.FIELD_FIELD_NUMBER, number))

    def _row(self, name: str, kind: str, path: Place) -> str:
        said = " ".join(self._comments[path].split()).replace("|", "\\|")
        return f"| `{name}` | {kind} | {said} |"


def type_of(field: Any, maps: dict[str, Any]) -> str:
    """Return a field's type as a reader writes it, with `repeated`, `optional` or `oneof` in front."""
    if entry := maps.get(short(field.type_name)):
        return f"map of {type_of(entry.field[0], {})} to {type_of(entry.field[1], {})}"
    kind = short(field.type_name) if field.type_name else Field.Type.Name(field.type).removeprefix("TYPE_").lower()
    if field.label == Field.LABEL_REPEATED:
        return f"repeated {kind}"
    if field.proto3_optional:
        return f"optional {kind}"
    return f"one of: {kind}" if field.HasField("oneof_index") else kind


def short(name: str) -> str:
    """Return a message's name without its package."""
    return name.rpartition(".")[2]
