"""MLC's conversations as Jinja: for folders whose tokenizer_config.json has no chat template.

MLC writes a prompt as: the system's text; for each message its role, a separator, the message in the role's template,
and one of `seps`, by turns; then the assistant's role and a separator of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from webllm.checkpoint import Vocabulary
from webllm.checkpoint.hf_tokenizer import well_formed
from webllm.errors import BadModel

_TEMPLATE = """\
{%- set roles = ROLES %}{% set before = BEFORE %}{% set after = AFTER %}{% set seps = SEPS %}
{%- set first = messages[0].role == "system" if messages else false %}
{%- set told = messages[0].content if first else DEFAULT %}
{%- set system = SYSTEM_BEFORE ~ told ~ SYSTEM_AFTER %}
{{- PREFIX ~ system }}
{%- for message in (messages[1:] if first else messages) %}
  {%- if ALWAYS_ROLE or not system or not loop.first %}{{- roles[message.role] ~ CONTENT_SEP }}{% endif %}
  {{- before[message.role] ~ message.content ~ after[message.role] ~ seps[loop.index0 % SEP_COUNT] }}
{%- endfor %}
{%- if add_generation_prompt %}{{- roles.assistant ~ EMPTY_SEP }}{% endif %}"""
_WORD = re.compile(r"\b[A-Z_]{3,}\b")


def jinja_of(conversation: Mapping[str, Any], vocabulary: Vocabulary, name: str) -> str | None:
    """The `conv_template` of an mlc-chat-config.json as a chat template; None if it has no roles.

    name: the file, for messages. Raises `BadModel` for what is no conversation.
    """
    roles = _texts(conversation.get("roles", {}), f"{name}: roles")
    if not {"user", "assistant"} <= roles.keys():
        return None
    templates = _texts(conversation.get("role_templates") or {}, f"{name}: role_templates")
    marks = {role: f"{{{role}_message}}" for role in roles}
    whole = {role: templates.get(role, mark).replace("{function_string}", "") for role, mark in marks.items()}
    split = {role: whole[role].partition(mark) for role, mark in marks.items()}
    seps = conversation.get("seps") or [""]
    if not isinstance(seps, list) or not all(isinstance(sep, str) for sep in seps):
        raise BadModel(f"{name}: seps must be a list of texts, got {str(seps)[:80]}")
    before, _, after = _text(conversation, "system_template", "{system_message}", name).partition("{system_message}")
    values = {
        "ROLES": roles,
        "BEFORE": {role: parts[0] for role, parts in split.items()},
        "AFTER": {role: parts[2] for role, parts in split.items()},
        "SEPS": seps,
        "SEP_COUNT": len(seps),
        "DEFAULT": _text(conversation, "system_message", "", name),
        "SYSTEM_BEFORE": before,
        "SYSTEM_AFTER": after,
        "PREFIX": _prefix(conversation.get("system_prefix_token_ids") or [], vocabulary, name),
        "ALWAYS_ROLE": conversation.get("add_role_after_system_message") is not False,
        "CONTENT_SEP": _text(conversation, "role_content_sep", ": ", name),
        "EMPTY_SEP": _text(conversation, "role_empty_sep", ": ", name),
    }
    return _WORD.sub(lambda word: _literal(values[word[0]]), _TEMPLATE)


def _literal(value: Any) -> str:
    """A value as Jinja writes it, which is how JSON does."""
    return well_formed(json.dumps(value, ensure_ascii=False))


def _texts(value: Any, name: str) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(text, str) for text in value.values()):
        raise BadModel(f"{name} must be an object of texts, got {str(value)[:80]}")
    return dict(value)


def _text(conversation: Mapping[str, Any], key: str, default: str, name: str) -> str:
    value = conversation.get(key)
    if not isinstance(value, str | None):
        raise BadModel(f"{name}: {key} must be text, got {str(value)[:80]}")
    return default if value is None else value


def _prefix(ids: Any, vocabulary: Vocabulary, name: str) -> str:
    """The texts of the tokens that every prompt begins with."""
    count = len(vocabulary.tokens)
    if not isinstance(ids, list) or not all(type(number) is int and 0 <= number < count for number in ids):
        raise BadModel(f"{name}: system_prefix_token_ids must be ids below {count}, got {str(ids)[:80]}")
    return "".join(vocabulary.tokens[number] for number in ids)
