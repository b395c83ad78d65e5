"""Measure an artifact with torch, numpy and safetensors alone: runs where this project is not installed.

    python -I plain_torch.py ARTIFACT DATASET

Prints JSON: parameters counted in model.safetensors, and the accuracy of model.pt2 on the test split.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file


def main() -> None:
    """Read, count, classify."""
    artifact, dataset = Path(sys.argv[1]), Path(sys.argv[2])
    report = json.loads((artifact / "report.json").read_text())
    arrays = np.load(dataset)
    x = torch.from_numpy(arrays["x_test"]).float().reshape(-1, *report["dataset"]["inputs"][0]["shape"])
    how = report["preprocessing"]
    shape = (1, -1, 1, 1)
    mean, std = (torch.tensor(how[name]).view(shape) for name in ("mean", "std"))
    x = (x * how["scale"] - mean) / std
    module = torch.export.load(artifact / "model.pt2").module()
    with torch.no_grad():
        found = torch.cat([module(part) for part in x.split(500)]).argmax(1)
    weights = load_file(artifact / "model.safetensors")
    print(
        json.dumps(
            {
                "params": sum(tensor.numel() for tensor in weights.values()),
                "accuracy": float((found.numpy() == arrays["y_test"]).mean()),
                "project": [name for name in sys.modules if name.startswith("npn")],
            }
        )
    )


if __name__ == "__main__":
    main()
