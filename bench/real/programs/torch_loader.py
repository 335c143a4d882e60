# SPDX-License-Identifier: Apache-2.0
"""Train a small model on batches made by two worker processes: torch_loader.py SAMPLES."""

import sys

import torch
from torch.utils.data import DataLoader, Dataset


class Waves(Dataset):
    """Noisy waves whose frequency the model must find; making a wave takes some work."""

    def __init__(self, samples):
        self._samples = samples

    def __len__(self):
        return self._samples

    def __getitem__(self, number):
        random = torch.Generator().manual_seed(number)
        frequency = number % 4 + 1
        times = torch.linspace(0, 6.28, 8192)
        wave = torch.sin(frequency * times) + torch.randn(8192, generator=random)
        return torch.fft.rfft(wave).abs()[:64], frequency - 1


if __name__ == "__main__":
    torch.manual_seed(1)
    torch.set_num_threads(1)
    model = torch.nn.Linear(64, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    loader = DataLoader(Waves(int(sys.argv[1])), batch_size=32, num_workers=2, shuffle=True)
    for epoch in range(2):
        total = 0.0
        for batch, kinds in loader:
            loss = torch.nn.functional.cross_entropy(model(batch), kinds)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        print(f"epoch {epoch} loss {total / len(loader):.6f}")
