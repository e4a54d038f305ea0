"""A training step in mixed precision; changes that cost something, and that cost nothing."""

SOURCE = """\
import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        heads = [t.unflatten(-1, (2, -1)).transpose(1, 2) for t in (q, k, v)]
        y = F.scaled_dot_product_attention(*heads, is_causal=True)
        y = y.transpose(1, 2).flatten(2)
        return x + self.drop(self.out(y))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, stride=4)
        self.norm = nn.BatchNorm2d(16)
        self.blocks = nn.ModuleList([Block(16), Block(16)])
        self.head = nn.Linear(16, 10)

    def forward(self, images):
        x = self.norm(self.stem(images))
        x = F.relu(x)
        x = x.flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        x = x.mean(dim=1)
        return self.head(x)


def make():
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, foreach=True)
    average = [p.detach().clone() for p in model.parameters()]

    def step(batch):
        images, labels = batch
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(images)
            loss = F.cross_entropy(logits, labels)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.detach()

    return step, [model, optimizer]
"""

# What is replaced, by what, and the line that has to be told.
COSTLY = {
    "a cast before an activation": (
        "x = F.relu(x)",
        "x = F.relu(x.float())",
        "x = F.relu(x.float())",
    ),
    "attention that left autocast": (
        "        y = F.scaled_dot_product_attention(*heads, is_causal=True)",
        '        with torch.autocast("cpu", enabled=False):\n'
        "            heads = [h.float() for h in heads]\n"
        "            y = F.scaled_dot_product_attention(*heads, is_causal=True)",
        "heads = [h.float() for h in heads]",
    ),
    "attention written out": (
        "y = F.scaled_dot_product_attention(*heads, is_causal=True)",
        "y = (heads[0] @ heads[1].mT).softmax(-1) @ heads[2]",
        "y = (heads[0] @ heads[1].mT).softmax(-1) @ heads[2]",
    ),
    "a loss that is read": (
        "loss.backward()",
        "print(end=str(loss.item())[:0])\n        loss.backward()",
        "print(end=str(loss.item())[:0])",
    ),
    "a copy of the batch": (
        "images, labels = batch",
        "images, labels = batch[0].clone(), batch[1]",
        "images, labels = batch[0].clone(), batch[1]",
    ),
    "a tensor made contiguous": (
        "x = x.flatten(2).transpose(1, 2)",
        "x = x.flatten(2).transpose(1, 2).contiguous()",
        "x = x.flatten(2).transpose(1, 2).contiguous()",
    ),
    "one dropout more": (
        "x = x.mean(dim=1)",
        "x = F.dropout(x.mean(dim=1), 0.1)",
        "x = F.dropout(x.mean(dim=1), 0.1)",
    ),
    "an optimizer that takes one parameter after the other": (
        "foreach=True",
        "foreach=False",
        "optimizer.step()",
    ),
    "an average of the weights": (
        "        return loss.detach()",
        "        with torch.no_grad():\n"
        "            for old, new in zip(average, model.parameters()):\n"
        "                old.lerp_(new, 0.1)\n"
        "        return loss.detach()",
        "old.lerp_(new, 0.1)",
    ),
    "gradients set to zero": (
        "optimizer.zero_grad()",
        "optimizer.zero_grad(set_to_none=False)",
        "optimizer.zero_grad(set_to_none=False)",
    ),
    "a second forward pass": (
        "        optimizer.step()",
        "        optimizer.step()\n        guessed = model(images).argmax(1)",
        "x = self.norm(self.stem(images))",
    ),
    "a block that is computed again in backward": (
        "            x = block(x)",
        "            x = torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False)",
        "q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)",
    ),
    "a mask that is made in each step": (
        "x = x.mean(dim=1)",
        "x = (x * torch.ones(x.shape[1], 1)).mean(dim=1)",
        "x = (x * torch.ones(x.shape[1], 1)).mean(dim=1)",
    ),
    "labels that are looked for": (
        "images, labels = batch",
        "images, labels = batch[0], batch[1][batch[1] >= 0]",
        "images, labels = batch[0], batch[1][batch[1] >= 0]",
    ),
    "two steps of the optimizer": (
        "        optimizer.step()",
        "        optimizer.step()\n        optimizer.step()",
        "optimizer.step()",
    ),
    "a norm of every gradient": (
        "        optimizer.step()",
        "        norms = [p.grad.norm() for p in model.parameters()]\n        optimizer.step()",
        "norms = [p.grad.norm() for p in model.parameters()]",
    ),
    "a graph that is gone through twice": (
        "loss.backward()",
        "loss.backward(retain_graph=True)\n        loss.backward()",
        "loss = F.cross_entropy(logits, labels)",
    ),
    "a normalisation in float32": (
        "x = self.norm(self.stem(images))",
        "x = self.norm(self.stem(images).float())",
        "x = self.norm(self.stem(images).float())",
    ),
    "a loss in float64": (
        "loss = F.cross_entropy(logits, labels)",
        "loss = F.cross_entropy(logits.double(), labels)",
        "loss = F.cross_entropy(logits.double(), labels)",
    ),
    "a memory format that the next layer does not have": (
        "x = self.norm(self.stem(images))",
        "x = self.norm(self.stem(images.to(memory_format=torch.channels_last)))",
        "x = self.norm(self.stem(images.to(memory_format=torch.channels_last)))",
    ),
    "a block too many": (
        "nn.ModuleList([Block(16), Block(16)])",
        "nn.ModuleList([Block(16), Block(16), Block(16)])",
        "y = F.scaled_dot_product_attention(*heads, is_causal=True)",
    ),
}

FREE = {
    "a class by another name": ("Block(", "Layer("),
    "a variable by another name": ("heads", "split_heads"),
    "a function for an operator": (
        "x + self.drop(self.out(y))",
        "torch.add(x, self.drop(self.out(y)))",
    ),
    "a comment": ("        x = F.relu(x)", "        # Nothing below zero.\n        x = F.relu(x)"),
    "a method for a function": ("x = F.relu(x)", "x = x.relu()"),
    "a module for a function": ("x = F.relu(x)", "x = nn.ReLU()(x)"),
    "a loop unrolled": (
        "        for block in self.blocks:\n            x = block(x)",
        "        x = self.blocks[0](x)\n        x = self.blocks[1](x)",
    ),
    "a function of torch for a method": ("x.mean(dim=1)", "torch.mean(x, 1)"),
    "a reshape for a flatten": ("x.flatten(2)", "x.reshape(*x.shape[:2], -1)"),
    "a view for an unflatten": ("t.unflatten(-1, (2, -1))", "t.view(*t.shape[:2], 2, -1)"),
    "a split for chunks": (".chunk(3, dim=-1)", ".split(16, dim=-1)"),
    "mT for a transpose": (
        "x = x.flatten(2).transpose(1, 2)",
        "x = x.flatten(2).mT",
    ),
    "a permutation for a transpose": ("y = y.transpose(1, 2)", "y = y.permute(0, 2, 1, 3)"),
    "the model's own zero_grad": ("optimizer.zero_grad()", "model.zero_grad()"),
    "a criterion that is a module": (
        "F.cross_entropy(logits, labels)",
        "nn.CrossEntropyLoss()(logits, labels)",
    ),
    "a cast that autocast makes anyway": (
        "F.cross_entropy(logits, labels)",
        "F.cross_entropy(logits.float(), labels)",
    ),
    "a batch by index": ("images, labels = batch", "images = batch[0]\n        labels = batch[1]"),
    "a function taken out": (
        "            logits = model(images)\n            loss = F.cross_entropy(logits, labels)",
        "            def loss_of(given):\n"
        "                return F.cross_entropy(model(given), labels)\n"
        "            loss = loss_of(images)",
    ),
    "a loss that is kept for later": (
        "        loss.backward()",
        "        kept = loss.detach()\n        loss.backward()",
    ),
    "blocks in a Sequential": (
        "nn.ModuleList([Block(16), Block(16)])",
        "nn.Sequential(Block(16), Block(16))",
    ),
    "a functional dropout": (
        "self.drop(self.out(y))",
        "F.dropout(self.out(y), 0.1, self.training)",
    ),
}
