"""What a shell needs to complete commands and options: a script, made of the parsers."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

from stargz.cli._parsers import Command, commands


def script(shell: str) -> str:
    """The script for a shell."""
    top, *found = commands()
    if shell == "fish":
        return "\n".join(_fish(top, found))
    bash = "\n".join(_bash(top, found))
    return f"autoload -U +X bashcompinit && bashcompinit\n{bash}" if shell == "zsh" else bash


def _options(command: Command) -> list[str]:
    return [option for action in command.actions for option in _named(action)]


def _named(action: argparse.Action) -> list[str]:
    """The option's names: not those of `find` that a shell takes for its own, as "(" and "!"."""
    return [option for option in action.option_strings if re.fullmatch("-[-a-zA-Z0-9]+", option)]


def _bash(top: Command, commands: list[Command]) -> Iterator[str]:
    groups = [command.name for command in commands if command.commands]
    yield "_stargz() {"
    yield "    local command= before= current= part= last= words= lead= known= i"
    # bash has words end at ":" and "=", which are words then; zsh does not.
    yield "    for ((i = 1; i <= COMP_CWORD; i++)); do"
    yield "        last=$part part=${COMP_WORDS[i]}"
    yield "        if [[ $part == : || $last == : ]]; then current+=$part; continue; fi"
    yield "        if [[ $last == = ]]; then current=$part; continue; fi"
    yield "        if [[ -z $known && -n $current && $current != -* ]]; then"
    yield "            command=${command:+$command }$current"
    yield f"            case $command in {'|'.join(groups)}) ;; *) known=1 ;; esac"
    yield "        fi"
    yield "        before=$current current=${part#=}"
    yield "    done"
    yield "    if [[ $current == --*=* ]]; then"
    yield "        before=${current%%=*} current=${current#*=} lead=$before="
    yield "    fi"
    yield "    COMPREPLY=()"
    yield '    case "$command:$before" in'
    for command in (top, *commands):
        for action in command.actions:
            for option in _named(action) if action.choices else ():
                values = " ".join(map(str, action.choices or ()))
                yield f"        '{command.name}:{option}') words='{values}' ;;"
    yield "    esac"
    yield '    [[ -z $words ]] && case "$command" in'
    for command in (top, *commands):
        listed = " ".join(_options(command))
        if command.commands:
            inner = " ".join(command.commands)
            yield f"        '{command.name}') words='{inner} {listed}' ;;"
        else:
            yield f"        '{command.name}') [[ $current == -* ]] && words='{listed}' ;;"
    yield "    esac"
    # Without a word of ours the shell completes the names of files.
    yield "    [[ -z $words ]] && return"
    yield '    COMPREPLY=($(compgen -P "$lead" -W "$words" -- "$current"))'
    # What is offered takes the place of what is behind the last ":".
    yield "    if [[ $current == *:* && $COMP_WORDBREAKS == *:* ]]; then"
    yield "        lead=$lead${current%:*}:"
    yield '        COMPREPLY=("${COMPREPLY[@]#"$lead"}")'
    yield "    fi"
    yield "}"
    yield "complete -o default -F _stargz stargz"


def _fish(top: Command, commands: list[Command]) -> Iterator[str]:
    yield "function __stargz_is"
    yield "    set -l words (commandline -opc)[2..-1]"
    yield "    set words (string match -v -- '-*' $words)"
    yield "    test (count $words) -ge (count $argv)"
    yield '    and test "$words[1.."(count $argv)"]" = "$argv"'
    yield "end"
    for action in top.actions:
        yield from _fish_option("__fish_use_subcommand", action)
    for command in commands:
        *outer, name = command.name.split()
        where = "__fish_use_subcommand"
        if outer:
            where = f"__stargz_is {outer[0]}; and test (count (commandline -opc)) -eq 2"
        yield f"complete -c stargz -f -n '{where}' -a {name} -d {_quoted(command.help)}"
        for action in () if command.commands else command.actions:
            yield from _fish_option(f"__stargz_is {command.name}", action)


def _fish_option(where: str, action: argparse.Action) -> Iterator[str]:
    if not _named(action):
        return
    words = ["complete", "-c", "stargz", "-n", f"'{where}'"]
    for option in _named(action):
        # -x, --long, and -long as those of find.
        kind = "-l" if option.startswith("--") else "-s" if len(option) == 2 else "-o"
        words += [kind, option.lstrip("-")]
    if action.choices:
        words += ["-x", "-a", f"'{' '.join(map(str, action.choices))}'"]
    elif action.nargs is None:
        words.append("-r")
    yield " ".join([*words, "-d", _quoted(action.help or "")])


def _quoted(text: str) -> str:
    first = text.replace("%%", "%").partition(";")[0]
    return "'" + first.replace("\\", "\\\\").replace("'", "\\'") + "'"
