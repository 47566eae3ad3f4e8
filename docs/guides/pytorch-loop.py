"""
# CRL in your PyTorch training loop

The losses of `crl_keras` take and return PyTorch tensors. You can use them in
a loop of your own, with `torch.nn` modules and no Keras model.

Set `KERAS_BACKEND=torch` before Keras is imported.
"""

import keras
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader
from torch.utils.data import TensorDataset

from crl_keras import SparseCompetingRatioLoss

EPOCHS = 20

assert keras.backend.backend() == "torch"
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)

x, y = load_digits(return_X_y=True)
arrays = train_test_split(
    x.astype("float32") / 16, y, test_size=0.3, stratify=y, random_state=0
)
x_train, x_test, y_train, y_test = map(torch.tensor, arrays)
batches = DataLoader(
    TensorDataset(x_train, y_train), batch_size=32, shuffle=True
)

"""
## Network, optimizer, schedule

Nothing here is special. The last layer gives logits.
"""

network = torch.nn.Sequential(
    torch.nn.Linear(64, 64),
    torch.nn.ReLU(),
    torch.nn.Linear(64, 10),
).to(device)
optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
loss = SparseCompetingRatioLoss(alpha=1.5, beta=1.0, from_logits=True)

"""
## The loop

Mind the order of the arguments: in Keras the labels come first, `loss(labels,
logits)`. `torch.autocast` gives bfloat16 logits; the loss computes them in
float32.
"""

for _ in range(EPOCHS):
    network.train()
    for inputs, labels in batches:
        inputs, labels = inputs.to(device), labels.to(device)
        optimizer.zero_grad()
        with torch.autocast(device, dtype=torch.bfloat16):
            logits = network(inputs)
        value = loss(labels, logits)
        value.backward()
        optimizer.step()
    schedule.step()

network.eval()
with torch.no_grad():
    predicted = network(x_test.to(device)).argmax(dim=1).cpu()
accuracy = np.mean(predicted.numpy() == y_test.numpy())
print(f"accuracy {accuracy:.3f}")

"""
## Save and load

The loss has no weights. Save the network as you always do.
"""

torch.save(network.state_dict(), "digits.pt")
network.load_state_dict(torch.load("digits.pt"))

"""
## Good to know

- [From a loop of PyTorch's own](../migrating.md#from-a-loop-of-pytorchs-own)
  has a table of the arguments of `torch.nn.functional.cross_entropy` and their
  names here: `ignore_index`, class weights, channels first.
- Keras uses the GPU if PyTorch sees one. If your network stays on the CPU of
  such a machine, call the loss inside `with keras.device("cpu"):`.
- The losses work under `torch.compile` and `torch.func`.
"""
