"""Proves the networks against published sizes, what the builder accepts and refuses, and that weights travel safely."""

from __future__ import annotations

import os
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from omegaconf import OmegaConf
from torch import Tensor, nn

from distill_cli import models
from distill_cli.base import files
from distill_cli.base.errors import CheckpointError, ConfigError
from distill_cli.config import building
from distill_cli.config.places import conf_dir
from distill_cli.data import Part, PictureSpec, assemble
from distill_cli.data.texts import TextSpec
from distill_cli.data.tokens import Tokenizer
from distill_cli.models import Classifier, deployable, num_parameters, weights
from distill_cli.models.deployable import Deployable
from distill_cli.models.features import Output
from distill_cli.models.resnet import SmallResNet, WideResNet
from distill_cli.models.smallcnn import SmallCNN
from distill_cli.tasks import task as tasks

COLOUR = PictureSpec(3, (32, 32), (0.5,) * 3, (0.25,) * 3)
GREY = PictureSpec(1, (28, 28), (0.2,), (0.3,))
SMALL = {"_target_": "distill_cli.models.smallcnn.SmallCNN", "widths": [3, 4]}


def shipped(name: str) -> dict[str, Any]:
    node: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / "model" / f"{name}.yaml"))
    return {str(key): value for key, value in node.items()}


def spec(size: int, channels: int = 3) -> PictureSpec:
    return PictureSpec(channels, (size, size), (0.5,) * channels, (0.25,) * channels)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


# --- sizes


@pytest.mark.parametrize(
    ("depth", "with_a", "with_b"),
    [(20, 269_722, 278_324), (32, 464_154, 472_756), (56, 853_018, 861_620), (110, 1_727_962, 1_736_564)],
)
def test_cifar_resnets_have_the_published_sizes(depth: int, with_a: int, with_b: int) -> None:
    widths = [16, 16, 32, 64]
    assert num_parameters(SmallResNet(depth, widths, 3, 10, "A")) == with_a
    assert num_parameters(SmallResNet(depth, widths, 3, 100, "B")) == with_b


@pytest.mark.parametrize(
    ("name", "published"),
    [("resnet8x4", 1_233_540), ("resnet32x4", 7_433_860), ("wrn_40_2", 2_255_156), ("wrn_16_2", 703_284)],
)
def test_the_distillation_tables_models_have_their_published_sizes(name: str, published: int) -> None:
    assert num_parameters(models.build(shipped(name), "student", COLOUR, 100)) == published


def test_smallcnn_has_the_size_of_its_layers() -> None:
    convolutions = (9 * 1 + 1) * 64 + (9 * 64 + 1) * 128
    head = (128 * 7 * 7 + 1) * 10
    assert convolutions + head == 137_226
    assert num_parameters(models.build(shipped("smallcnn"), "student", GREY, 10)) == 137_226


def test_resnet_reaches_every_pixel_and_shrinks_twice() -> None:
    net = SmallResNet(8, [4, 4, 6, 8], 3, 5).eval()
    sizes = []
    for layer in (net.layer1, net.layer2, net.layer3):
        layer.register_forward_hook(lambda *call: sizes.append(tuple(call[2].shape[1:])))
    assert net(draw(2, 3, 16, 16)).shape == (2, 5)
    assert sizes == [(4, 16, 16), (6, 8, 8), (8, 4, 4)]


@pytest.mark.parametrize("depth", [7, 21, 2])
def test_impossible_depths_are_refused(depth: int) -> None:
    with pytest.raises(ValueError, match=r"6n \+ 2"):
        SmallResNet(depth, [4, 4, 4, 4], 3, 10)
    with pytest.raises(ValueError, match=r"6n \+ 4"):
        WideResNet(depth, 1, 3, 10)


# --- building


FILES = {p.stem: p.read_text() for p in (conf_dir() / "model").glob("*.yaml")}
OTHERS = {"torchvision", "timm", "huggingface"}  # which need a name
OF_TEXTS = sorted(name for name, text in FILES.items() if ".huggingface." in text and name not in OTHERS)
OWN_NAME = sorted(FILES.keys() - OTHERS - {*OF_TEXTS})


@pytest.mark.parametrize("name", OWN_NAME)
def test_every_shipped_model_gives_logits_at_32_pixels(name: str) -> None:
    model = models.build(shipped(name), "student", COLOUR, 7).eval()
    with torch.no_grad():
        logits = model(draw(2, 3, 32, 32))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()
    assert not torch.equal(logits[0], logits[1])


@pytest.mark.parametrize("name", OF_TEXTS)
def test_every_shipped_model_of_texts_is_built_for_a_tokenizer(name: str) -> None:
    spec = TextSpec(Tokenizer.made_from(["a fine day", "a fine night"]), 16)
    with torch.device("meta"):  # the sizes of papers are large
        net = models.network(shipped(name), "student", spec, 7)
    head = [part for part in net.modules() if isinstance(part, nn.Linear)][-1]
    assert head.out_features == 7


@pytest.mark.parametrize(("size", "stride"), [(28, 2), (32, 1), (63, 1), (64, 2)])
def test_auto_stem_is_small_from_32_to_below_64_pixels(size: int, stride: int) -> None:
    node = shipped("mobilenet_v3_small")
    model = models.build(node, "teacher", spec(size), 10)
    stem: Any = model.net.features[0][0]
    assert stem.stride == (stride, stride)
    # What is kept must be able to build the same network whatever size it is shown then.
    rebuilt: Any = models.build(models.rebuild_node(node, model), "teacher", spec(48), 10).net
    assert rebuilt.features[0][0].stride == (stride, stride)


def test_a_small_resnet_stem_keeps_every_pixel() -> None:
    net: Any = models.build(shipped("resnet18"), "teacher", COLOUR, 10).net
    assert (net.conv1.kernel_size, net.conv1.stride) == ((3, 3), (1, 1))
    assert isinstance(net.maxpool, nn.Identity)
    large: Any = models.build({**shipped("resnet18"), "stem": "imagenet"}, "teacher", COLOUR, 10).net
    assert (large.conv1.kernel_size, large.maxpool.stride) == ((7, 7), 2)


@pytest.mark.parametrize("name", ["squeezenet1_1", "shufflenet_v2_x0_5"])
def test_a_model_without_such_a_stem_cannot_have_a_small_one(name: str) -> None:
    node = {**shipped("torchvision"), "name": name, "stem": "small"}
    with pytest.raises(ConfigError, match=f"{name} has no such stem"):
        models.build(node, "student", COLOUR, 4)


def test_auto_leaves_a_model_without_a_small_stem_alone() -> None:
    node = {**shipped("torchvision"), "name": "squeezenet1_1", "stem": "auto"}
    assert models.build(node, "student", COLOUR, 4)(draw(1, 3, 32, 32)).shape == (1, 4)


def test_an_unknown_torchvision_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'resnet81'; did you mean resnet18"):
        models.build({**shipped("torchvision"), "name": "resnet81"}, "teacher", COLOUR, 4)


def test_grey_pictures_are_expanded_to_the_channels_a_model_takes() -> None:
    model = models.build({**SMALL, "in_channels": 3}, "teacher", GREY, 5).eval()
    pictures = draw(2, 1, 28, 28)
    assert model.front.channels == 3
    assert torch.equal(model(pictures), model.net(torch.cat([pictures] * 3, 1)))


def test_colour_is_not_squeezed_into_a_grey_model() -> None:
    with pytest.raises(ConfigError, match=r"takes 1 channel\(s\), but the pictures have 3\ndrop student\.in_channels"):
        models.build({**SMALL, "in_channels": 1}, "student", COLOUR, 5)


@pytest.mark.parametrize("own", [3, 1])
def test_a_teachers_own_normalisation_is_as_normalising_by_hand(own: int) -> None:
    mean, std = [0.485, 0.456, 0.406][:own], [0.229, 0.224, 0.225][:own]
    data = PictureSpec(3, (32, 32), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    model = models.build({**SMALL, "mean": mean, "std": std}, "teacher", data, 5).eval()
    raw = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    shaped = [torch.tensor(v).view(1, -1, 1, 1) for v in (data.mean, data.std, mean, std)]
    answer = model((raw - shaped[0]) / shaped[1])
    assert torch.allclose(answer, model.net((raw - shaped[2]) / shaped[3]), atol=1e-4)
    assert not torch.allclose(answer, model.net((raw - shaped[0]) / shaped[1]), atol=1e-2)


def test_a_colour_teacher_sees_grey_data_under_its_own_normalisation() -> None:
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    model = models.build({**SMALL, "in_channels": 3, "mean": mean, "std": std}, "teacher", GREY, 5).eval()
    raw = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    by_hand = (raw.expand(-1, 3, -1, -1) - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    assert torch.allclose(model((raw - 0.2) / 0.3), model.net(by_hand), atol=1e-4)


def test_a_normalisation_does_not_enter_the_weights() -> None:
    model = models.build({**SMALL, "mean": [0.4] * 3, "std": [0.2] * 3}, "teacher", COLOUR, 5)
    assert set(model.state_dict()) == {f"net.{name}" for name in model.net.state_dict()}


class Fixed(nn.Module):
    """A user's model that takes no number of classes and always gives four logits."""

    def __init__(self, hidden: int = 2, name: str = "a", flag: bool = False) -> None:
        super().__init__()
        self.settings = (hidden, name, flag)
        self.linear = nn.Linear(3, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.linear(inputs.mean((2, 3)))


class Pair(Fixed):
    """A user's model that answers with a tuple."""

    def forward(self, inputs: Tensor) -> Any:
        return super().forward(inputs), None


def make_fixed(hidden: int) -> Fixed:
    return Fixed(hidden)


def make_unannotated(hidden):  # type: ignore[no-untyped-def]
    raise AssertionError("must not be called")


HERE = __name__


def test_a_model_with_another_number_of_logits_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"student: should give logits of shape \(N, 10\), gave \('N', 4\)"):
        model = models.build({"_target_": f"{HERE}.Fixed"}, "student", COLOUR, 10)
        pixels = torch.zeros(20, 3, *COLOUR.size, dtype=torch.uint8)
        part = Part(pixels, np.arange(20) % 10)
        data = assemble(part, part, part, "abcdefghij", val_fraction=0.1, split_seed=0, mean=None, std=None, note="")
        tasks.of(data).check(Output(models.probe(model, "student")), "student")


def test_a_model_that_gives_no_tensor_is_refused() -> None:
    with pytest.raises(ConfigError, match="student: should give a tensor of logits, gave tuple"):
        models.build({"_target_": f"{HERE}.Pair"}, "student", COLOUR, 4)


def test_pictures_too_small_for_a_model_are_refused() -> None:
    with pytest.raises(ConfigError, match="poolings leave nothing of 3 x 3 pixels"):
        models.build(SMALL, "student", spec(3), 4)
    with pytest.raises(
        ConfigError, match=r"(?s)teacher: cannot take pictures of 3x8x8.*it takes 24x24: teacher\.size=24"
    ):
        models.build({**shipped("torchvision"), "name": "squeezenet1_1"}, "teacher", spec(8), 4)


def test_probing_a_model_leaves_it_as_it_was() -> None:
    model = models.build(shipped("resnet8x4"), "student", COLOUR, 4)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    models.probe(model, "student")
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def build(target: str, trust: list[str] | tuple[str, ...] | None = None, **arguments: Any) -> nn.Module:
    return building.build({"_target_": target, **arguments}, nn.Module, "student", trust=trust)


def test_a_users_class_and_annotated_function_are_built() -> None:
    assert build(f"{HERE}.Fixed", hidden=5, name="b", flag=True).settings == (5, "b", True)
    assert build(f"{HERE}.make_fixed", hidden=7).settings == (7, "a", False)


def test_commands_are_not_models(tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    for target in ("os.system", "subprocess.call", "pathlib.Path", "builtins.eval"):
        with pytest.raises(ConfigError, match="is not a Module"):
            build(target, command=f"touch {witness}")
    assert not witness.exists()


def test_a_function_that_does_not_say_what_it_returns_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"make_unannotated is not a Module, nor a function annotated"):
        build(f"{HERE}.make_unannotated", hidden=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hiden": 3}, r"student\.hiden: Fixed takes no such key; did you mean student\.hidden\?"),
        ({"hidden": "three"}, r"student\.hidden: should be a whole number, got 'three'"),
        ({"hidden": 2.5}, r"student\.hidden: should be a whole number, got 2\.5"),
        ({"name": 3}, r"student\.name: should be text, got 3"),
        ({"flag": "yes"}, r"student\.flag: should be true or false, got 'yes'"),
    ],
)
def test_arguments_are_checked_against_the_signature(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(f"{HERE}.Fixed", **arguments)


def test_every_wrong_argument_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        build(f"{HERE}.Fixed", hidden="x", flga=True)
    assert "student.hidden" in caught.value.message and "student.flga" in caught.value.message


def test_a_missing_argument_is_named() -> None:
    with pytest.raises(ConfigError, match=r"needs student\.hidden"):
        build(f"{HERE}.make_fixed")


@pytest.mark.parametrize("target", ["nosuchpackage.Net", "torch.nn.NoSuchNet", "Net", ""])
def test_a_target_that_does_not_exist_is_refused(target: str) -> None:
    with pytest.raises(ConfigError, match=r"student\._target_"):
        build(target)


def test_what_a_file_names_is_built_only_when_trusted() -> None:
    with pytest.raises(CheckpointError, match=rf"add trust=\[{HERE.split('.')[0]}\]"):
        build(f"{HERE}.Fixed", trust=())
    # A package whose name only begins like a trusted one is another package.
    with pytest.raises(CheckpointError):
        build(f"{HERE}.Fixed", trust=[HERE[:-1]])
    assert isinstance(build(f"{HERE}.Fixed", trust=[HERE]), Fixed)
    assert isinstance(
        build(SMALL["_target_"], (), widths=[2], in_channels=1, num_classes=2, input_size=[8, 8]), SmallCNN
    )


# --- weights in files


def net() -> SmallResNet:
    return SmallResNet(8, [4, 4, 6, 8], 3, 5)


def test_weights_of_another_architecture_are_refused_with_what_does_not_fit() -> None:
    ours = net()
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    for other, said in (
        (SmallResNet(14, [4, 4, 6, 8], 3, 5), r"does not fit SmallResNet: .* unknown here \(layer1\.1\."),
        (SmallResNet(8, [4, 4, 6, 8], 3, 9), r"fc\.weight is \(9, 8\) there and \(5, 8\) here"),
        (ours.layer1, r"of our tensors are missing there \(conv1\.weight"),
    ):
        with pytest.raises(CheckpointError, match=said):
            weights.load_into(ours, other.state_dict(), "file.pth")
    assert all(torch.equal(before[name], tensor) for name, tensor in ours.state_dict().items())


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_damaged_files_are_refused(tmp_path: Path, suffix: str) -> None:
    whole = tmp_path / f"whole{suffix}"
    if suffix == ".pt":
        torch.save(net().state_dict(), whole)
    else:
        weights.save_weights(whole, net())
    content = whole.read_bytes()
    damaged = {
        "empty": b"",
        "head": content[:40],
        "half": content[: len(content) // 2],
        "end": content[:-1],
        "noise": random.Random(1).randbytes(5000),
        "words": b"<html>404: not found</html>",
    }
    assert weights.read_weights(whole).keys() == net().state_dict().keys()
    for name, data in damaged.items():
        path = tmp_path / f"{name}{suffix}"
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=str(path)):
            weights.read_weights(path)


def test_published_weights_keep_all_but_a_head_of_other_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    published = torchvision.models.mobilenet_v3_small()
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(published.state_dict(), folder / "mobilenet_v3_small-047dcff4.pth")  # where torchvision keeps a download
    node = {"_target_": "distill_cli.models.zoo.torchvision", "name": "mobilenet_v3_small", "weights": "IMAGENET1K_V1"}
    model = models.build({**node, "stem": "auto"}, "teacher", PictureSpec(3, (32, 32), (0.5,) * 3, (0.5,) * 3), 7)
    before, after = published.state_dict(), model.net.state_dict()
    assert after["classifier.3.weight"].shape == (7, 1024)
    assert all(torch.equal(before[name], after[name]) for name in before if not name.startswith("classifier.3"))
    # built again from a file, nothing is downloaded and the stem stays the one the weights were made for
    assert models.rebuild_node({**node, "stem": "auto"}, model) == {**node, "weights": None, "stem": "imagenet"}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"there is no file {tmp_path}/nowhere.pt"):
        weights.read_weights(tmp_path / "nowhere.pt")


class Payload:
    """What a malicious checkpoint holds: unpickling it runs a command."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.witness}",)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    pickle.loads(pickle.dumps(Payload(witness)))
    assert witness.exists(), "the payload would not have shown anything"
    witness.unlink()
    torch.save({"state_dict": net().state_dict(), "extra": Payload(witness)}, tmp_path / "zipped.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Payload(witness)))
    torch.save(net(), tmp_path / "whole_model.pt")
    for name in ("zipped.pt", "bare.pt", "whole_model.pt"):
        with pytest.raises(CheckpointError, match="holds code or objects other than tensors"):
            weights.read_weights(tmp_path / name)
    assert not witness.exists()


@pytest.mark.parametrize("content", [{"epoch": 3}, [1, 2], {}, {"state_dict": {"a": 1}}])
def test_a_file_without_a_state_dict_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="holds no state dict"):
        weights.read_weights(tmp_path / "other.pt")


# --- our own files


CARD = {"model": {}, "classes": ["a"], "input": {}, "names": {"dataset": "x"}, "dataset": {}}
CARD["role"] = "student"


def kept(folder: Path, ours: nn.Module) -> str:
    """Leave the network in the folder as a run leaves its student; returns its digest."""
    return Deployable(CARD, Classifier(ours, COLOUR)).write(folder)


def test_weights_come_back_as_they_went_and_equal_weights_are_equal_bytes(tmp_path: Path) -> None:
    ours, copy, other = net(), net(), net()
    ours(draw(4, 3, 8, 8))
    digest = weights.save_weights(tmp_path / "a.safetensors", ours)
    copy.load_state_dict(weights.read_weights(tmp_path / "a.safetensors"))
    assert all(torch.equal(tensor, copy.state_dict()[name]) for name, tensor in ours.state_dict().items())
    assert weights.save_weights(tmp_path / "b.safetensors", copy) == digest
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert weights.save_weights(tmp_path / "c.safetensors", other) != digest


def test_a_kept_model_loads_and_a_flipped_byte_is_refused(tmp_path: Path) -> None:
    ours = net()
    digest = kept(tmp_path, ours)
    copy = net()
    assert deployable.load_into(copy, tmp_path)["sha256"] == digest
    assert torch.equal(copy.fc.weight, ours.fc.weight)
    path = tmp_path / "student.safetensors"
    assert deployable.verified(path, digest) == path
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))
    # The file still reads: only the digest tells.
    assert weights.read_weights(path).keys() == ours.state_dict().keys()
    with pytest.raises(CheckpointError, match=r"student\.safetensors is not what was written"):
        deployable.verified(path, digest)
    with pytest.raises(CheckpointError, match="is not what was written"):
        deployable.load_into(net(), tmp_path)


def test_a_card_that_is_missing_or_damaged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no model\.json"):
        deployable.load_into(net(), tmp_path)
    kept(tmp_path, net())
    for content in ('{"model"', "[]", '{"model": {}}', ""):
        (tmp_path / "model.json").write_text(content)
        with pytest.raises(CheckpointError, match=r"model\.json is (damaged|not what was written)"):
            deployable.load_into(net(), tmp_path)
    files.write_json(tmp_path / "model.json", {"model": {}})
    with pytest.raises(CheckpointError, match=r"model\.json is damaged: input, classes"):
        deployable.load_into(net(), tmp_path)


def test_a_card_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    home = tmp_path / "kept"
    home.mkdir()
    kept(home, net())
    (home / "student.safetensors").rename(tmp_path / "student.safetensors")
    files.write_json(home / "model.json", {**deployable.read_card(home), "weights": "../student.safetensors"})
    with pytest.raises(CheckpointError, match="there is no file"):
        deployable.load_into(net(), home)


BOTTLENECK = {"_target_": "distill_cli.models.resnet.SmallResNet", "depth": 8, "shortcut": "B"}


@pytest.mark.parametrize(("widths", "last"), [([4, 4, 4, 8], False), ([16, 16, 32, 64], True)])
def test_channels_go_last_unless_that_corrupts_memory(widths: list[int], last: bool) -> None:
    # oneDNN#6035: a strided 1x1 convolution of few channels, trained with channels last on a CPU
    model = models.build({**BOTTLENECK, "widths": widths}, "student", COLOUR, 5)
    assert (model.front.layout == torch.channels_last) == last
    for _ in range(20):
        model(draw(5, 3, 32, 32)).sum().backward()


def test_a_card_that_asks_for_huge_networks_is_refused_before_memory_is_taken() -> None:
    state = net().state_dict()
    for node in ({**SMALL, "widths": [10**9, 10**9]}, {**SMALL, "widths": [10**12]}, {**SMALL, "widths": []}):
        with pytest.raises(CheckpointError, match=r"student\.safetensors"):
            deployable.rebuild({**CARD, "model": node}, COLOUR, state, "student.safetensors", [])


def test_what_a_file_names_is_built_only_where_it_is_trusted() -> None:
    state = net().state_dict()
    for target in (
        "os.mkdir",
        "distill_cli.base.files.os.mkdir",
        "torch.load",
        "torchvision.models._api.inspect.getmodule",
    ):
        with pytest.raises(CheckpointError):
            deployable.rebuild({**CARD, "model": {"_target_": target}}, COLOUR, state, "x", [])


def test_a_classifier_gives_what_its_network_gives() -> None:
    model = models.build(SMALL, "student", COLOUR, 5)
    assert isinstance(model, Classifier)
    inputs = draw(2, 3, 32, 32)
    assert torch.equal(model(inputs), model.net(inputs))


def test_a_network_of_timm_takes_the_datas_channels_and_classes() -> None:
    node = {"_target_": "distill_cli.models.zoo.timm", "name": "resnet10t", "weights": None}
    model = models.build(node, "student", GREY, 7)
    assert model.net(torch.zeros(2, 1, 28, 28)).shape == (2, 7)
    with pytest.raises(ConfigError, match="did you mean resnet10t"):
        models.build({**node, "name": "resnet10"}, "student", GREY, 7)
