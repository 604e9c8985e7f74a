"""Data and training of the networks in the benchmarks."""

import os

import numpy as np
import torch
import torch.nn.functional as F


def load_mnist(folder, n_train=None):
    """Images (n, 1, 28, 28) in [0, 1] and labels: training, test."""
    data = np.load(folder / "mnist" / "data.npz", allow_pickle=False)
    return (
        torch.from_numpy(data["X_train"][:n_train])[:, None] / 255,
        torch.from_numpy(data["y_train"][:n_train]).long(),
        torch.from_numpy(data["X_test"])[:, None] / 255,
        torch.from_numpy(data["y_test"]).long(),
    )


def load_cifar(folder):
    """Images (n, 3, 32, 32), standardised by channel, and labels: training, test."""
    data = np.load(folder / "cifar10" / "data_small.npz", allow_pickle=False)
    X, y, X_test, y_test = (
        torch.from_numpy(data[key])
        for key in ("X_train", "y_train", "X_test", "y_test")
    )
    X, X_test = (x.permute(0, 3, 1, 2).float() / 255 for x in (X, X_test))
    mean, std = X.mean((0, 2, 3), keepdim=True), X.std((0, 2, 3), keepdim=True)
    return (X - mean) / std, y.long(), (X_test - mean) / std, y_test.long()


def train(net, X, y, *, epochs, seed, lr=0.05, batch_size=128, flip=False):
    """SGD with a one-cycle schedule; flip: random mirror images. On all cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(
        net.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    n_batches = len(X) // batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps=epochs * n_batches
    )
    net.train()
    for _ in range(epochs):
        order = torch.randperm(len(X), generator=generator)
        for rows in order[: n_batches * batch_size].split(batch_size):
            batch = X[rows]
            if flip:
                mirrored = torch.rand(len(rows), generator=generator) < 0.5
                mirrored = mirrored.to(batch.device)
                batch = torch.where(
                    mirrored[:, None, None, None], batch.flip(-1), batch
                )
            optimizer.zero_grad()
            F.cross_entropy(net(batch), y[rows]).backward()
            optimizer.step()
            schedule.step()
    torch.set_num_threads(threads)
    return net.eval()


def error_rate(net, X, y):
    """Percentage of wrong classes."""
    with torch.no_grad():
        found = torch.cat([net(batch).argmax(1) for batch in X.split(500)])
    return 100 * (found != y).double().mean().item()
