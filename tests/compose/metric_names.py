#!/usr/bin/env python3
"""Checks that docs/metrics.md, the alert rules, the dashboard and running nodes agree on the metrics.

    metric_names.py                     rules and dashboard use documented names only
    metric_names.py FILE...             also: each FILE, a node's /metrics, has the documented names, types and labels
    metric_names.py --expressions       prints the dashboard's expressions, one a line, ready for Prometheus
"""

import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs/metrics.md"
DASHBOARD = ROOT / "deploy/grafana/dashboards/gantry.json"
RULES = sorted((ROOT / "deploy/prometheus/rules").glob("*.yml"))

NAME = re.compile(r"\b(?:gantry|rocketmq)_[a-z0-9_]+")
SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? \S+")
LABEL = re.compile(r'([a-zA-Z_]\w*)="(?:[^"\\]|\\.)*"')
PARTS = ("_bucket", "_sum", "_count")


def documented():
    """The table rows of docs/metrics.md: name -> (type, labels, may be absent)."""
    metrics = {}
    for line in DOCUMENT.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 5 or not cells[0].startswith("`"):
            continue
        name, kind, labels, source, _ = cells
        if labels.startswith("as "):
            labels = metrics[labels[3:].strip("`")][1]
        else:
            labels = set(re.findall(r"`([a-z_]+)`", re.sub(r"\(.*?\)", "", labels)))
        metrics[name.strip("`")] = (kind, labels, "when" in source)
    return metrics


def family(name, metrics):
    """The metric that a sample or an expression names: a histogram's parts belong to the histogram."""
    for part in PARTS:
        base = name.removesuffix(part)
        if base != name and metrics.get(base, ("",))[0] == "histogram":
            return base
    return name


def expressions():
    """Every expression of the dashboard."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"]


def used_wrongly(metrics):
    """Names in rules and dashboard that the document does not know."""
    texts = {path.name: path.read_text() for path in RULES}
    texts[DASHBOARD.name] = "\n".join(expressions())
    for where, text in texts.items():
        for name in sorted(set(NAME.findall(text))):
            if family(name, metrics) not in metrics:
                yield f"{where} uses {name}, which docs/metrics.md does not have"


def exposed_wrongly(path, metrics):
    """What a node's /metrics gets wrong."""
    types, seen = {}, {}
    for line in pathlib.Path(path).read_text().splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ", 3)
            types[name] = kind
        elif line and not line.startswith("#"):
            name, labels = SAMPLE.match(line).groups()
            seen.setdefault(family(name, metrics), set(LABEL.findall(labels or "")) - {"le"})
    for name in sorted(seen):
        if name not in metrics:
            yield f"{path}: {name} is not in docs/metrics.md"
            continue
        kind, labels, _ = metrics[name]
        if types.get(name) != kind:
            yield f"{path}: {name} is a {types.get(name)}, documented as a {kind}"
        if seen[name] != labels:
            yield f"{path}: {name} has the labels {sorted(seen[name])}, documented are {sorted(labels)}"
    for name, (_, _, optional) in sorted(metrics.items()):
        if not optional and name not in seen:
            yield f"{path}: {name} is missing"


def main():
    arguments = sys.argv[1:]
    if arguments == ["--expressions"]:
        for expression in expressions():
            print(expression.replace("$__rate_interval", "1m"))
        return 0
    metrics = documented()
    if not metrics:
        print(f"no table found in {DOCUMENT}")
        return 1
    faults = list(used_wrongly(metrics))
    for path in arguments:
        faults += exposed_wrongly(path, metrics)
    for fault in faults:
        print(fault)
    return 1 if faults else 0


sys.exit(main())
