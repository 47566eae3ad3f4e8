"""The methods against plain PyTorch with the same weights: loss and gradient.

The twins are written from the papers and the authors' code; they import
nothing of ours.
"""

import keras
import numpy as np
import pytest
from autodiff import to_numpy
from test_methods import CRL
from test_methods import build
from test_methods import data
from test_methods import small_backbone

from crl_keras.layers import RegionConfusion


class Twin:
    """Weights of a Keras model by the path of their variables, in PyTorch."""

    def __init__(self, model):
        import torch

        self.weights = {
            v.path: torch.tensor(
                np.array(to_numpy(v)), requires_grad=bool(v.trainable)
            )
            for v in model.weights
        }

    def __getitem__(self, path):
        return self.weights[path]

    def maps(self, x):
        """The maps of the small backbone: the finer ones and the last."""
        import torch
        from torch.nn import functional as f

        def conv(x, kernel, bias):
            # Keras pads an even side by stride 2 at the right and below.
            x = f.pad(x, (0, 1, 0, 1))
            return f.conv2d(x, kernel.permute(3, 2, 0, 1), bias, stride=2)

        x = conv(x.permute(0, 3, 1, 2), self["conv_a/kernel"], None)
        x = f.batch_norm(
            x,
            None,
            None,
            self["norm_a/gamma"],
            self["norm_a/beta"],
            training=True,
            eps=1e-3,
        )
        finer = torch.relu(x)
        end = torch.relu(
            conv(finer, self["conv_b/kernel"], self["conv_b/bias"])
        )
        return finer, end

    def dense(self, x, name, bias=True):
        y = x @ self[f"{name}/kernel"]
        return y + self[f"{name}/bias"] if bias else y


def cross_entropy(logits, labels):
    from torch.nn import functional as f

    return f.cross_entropy(logits, labels)


def competing_ratio(logits, labels):
    import torch
    from torch.nn import functional as f

    losses = f.cross_entropy(logits, labels, reduction="none")
    return (losses + torch.log(2.5 - torch.exp(-losses))).mean()


def bcnn(twin, x, y, loss):
    """cvl-umass/bilinear-cnn: bmm, signed root with 1e-5, normalised."""
    import torch
    from torch.nn import functional as f

    a = twin.maps(x)[1].flatten(2)
    z = torch.bmm(a, a.transpose(1, 2)).flatten(1) / a.shape[2]
    z = torch.sqrt(f.relu(z) + 1e-5) - torch.sqrt(f.relu(-z) + 1e-5)
    return loss(twin.dense(f.normalize(z), "logits"), y)


def dfl(twin, x, y, loss):
    finer, end = twin.maps(x)
    found = finer.permute(0, 2, 3, 1) @ twin["filters/kernel"]
    v = (found + twin["filters/bias"]).amax(dim=(1, 2))
    side = v.reshape(len(x), 3, 2).mean(dim=2)
    of_all = twin.dense(end.mean(dim=(2, 3)), "logits_global")
    of_patches = twin.dense(v, "logits_patch")
    return loss(of_all, y) + loss(of_patches, y) + 0.1 * loss(side, y)


def dcl(twin, x, y, loss):
    """JDAI-CV/DCL, its images destroyed by exact permutations."""
    import torch
    from torch.nn import functional as f

    confusion = RegionConfusion(4, seed=3)
    _, sources = confusion(to_numpy(x.numpy()).astype("f"), training=True)
    sources = torch.tensor(to_numpy(sources).astype(int))
    images = []
    for image, of in zip(x, sources[:, 1], strict=True):
        cells = [
            image[4 * (s // 4) :, 4 * (s % 4) :][:4, :4] for s in of.tolist()
        ]
        rows = [torch.cat(cells[i : i + 4], dim=1) for i in range(0, 16, 4)]
        images += [image, torch.cat(rows)]
    end = twin.maps(torch.stack(images))[1]
    pooled = end.mean(dim=(2, 3))
    labels = y.repeat_interleave(2)
    swapped = labels + 3 * torch.tensor([0, 1] * len(x))
    where = end.permute(0, 2, 3, 1) @ twin["alignment/kernel"]
    where = where + twin["alignment/bias"]
    where = torch.tanh(f.avg_pool2d(where.permute(0, 3, 1, 2), 1)).flatten(1)
    truth = (sources.reshape(-1, 16) - 8) / 16
    return (
        loss(twin.dense(pooled, "logits", bias=False), labels)
        + cross_entropy(twin.dense(pooled, "swap", bias=False), swapped)
        + 0.5 * (where - truth).abs().mean()
    )


@pytest.mark.parametrize("method", [bcnn, dfl, dcl])
def test_loss_and_gradient(method):
    import torch

    name = method.__name__
    model = build(
        name, small_backbone(), **({"gamma": 0.5} if name == "dcl" else {})
    )
    twin = Twin(model)
    x, y = data(6)
    images, labels = torch.tensor(x).double(), torch.tensor(y).long()
    total = method(twin, images, labels, competing_ratio)
    total.backward()
    # One step with rate 1 takes away the gradient.
    model.compile(keras.optimizers.SGD(1.0), CRL(from_logits=True))
    before = {v.path: to_numpy(v) for v in model.trainable_variables}
    found = model.train_on_batch(x, y)
    assert float(found) == pytest.approx(total.item(), rel=1e-5)
    for v in model.trainable_variables:
        gradient = before[v.path] - to_numpy(v)
        expected = twin[v.path].grad.numpy()
        scale = abs(expected).max() + 1e-3
        np.testing.assert_allclose(
            gradient / scale, expected / scale, atol=5e-4, err_msg=v.path
        )
