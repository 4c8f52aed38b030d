"""A LightningModule that knows nothing of this repository, as users write them: tests copy this file."""

import torch
from lightning import LightningModule
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the usual name


class Plain(LightningModule):
    def __init__(self, num_classes: int, width: int = 16, rate: float = 0.05):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(49, width), nn.ReLU(), nn.Linear(width, num_classes))

    def forward(self, images):
        return self.net(images[:, :, ::4, ::4])

    def step(self, batch, stage):
        images, labels = batch[:2]
        logits = self(images)
        loss = F.cross_entropy(logits, labels)
        wrong = (logits.argmax(1) != labels).float().mean()
        self.log_dict({f"{stage}/loss": loss, f"{stage}/top1_error": wrong}, on_epoch=True, on_step=False)
        return loss, logits

    def training_step(self, batch, batch_idx):
        return self.step(batch, "train")[0]

    def validation_step(self, batch, batch_idx):
        return self.step(batch, "val")[1]

    def test_step(self, batch, batch_idx):
        return self.step(batch, "test")[1]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams["rate"], momentum=0.9)
