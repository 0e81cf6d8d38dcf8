"""The frozen towers: tiny is the same everywhere, checkpoints load, missing ones are an error."""

import numpy as np
import open_clip
import pytest
import torch

from mlalign.extract.config import ExtractConfig
from mlalign.extract.encode.backbones import load_backbone
from mlalign.extract.encode.devices import BackboneError, has_native_bfloat16, pick_precision

TINY_SHA256 = "737161df4ec34e9850bd5e0587fb4a7b8c87d1fb1c5af333b1383275771e523b"


def load(name="tiny", *, tag=None, checkpoint=None, precision="float32", device="cpu"):
    return load_backbone(name, tag=tag, checkpoint=checkpoint, precision=precision, device=device)


@pytest.fixture(scope="module")
def tiny():
    return load()


def pictures(count, size=96, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_tiny_has_the_same_weights_on_every_machine(tiny):
    assert tiny.weights_sha256 == TINY_SHA256


def test_tiny_does_not_depend_on_the_random_state():
    torch.manual_seed(1)
    assert load().weights_sha256 == TINY_SHA256


@pytest.mark.skipif(
    not hasattr(torch.cpu, "get_capabilities"),
    reason="before 2.6, PyTorch rounds by the place in a batch on some processors",
)
def test_a_frame_has_the_same_feature_in_any_company(tiny):
    batch = pictures(8)
    order = np.random.default_rng(1).permutation(8)
    assert np.array_equal(tiny.encode_pictures(batch[order]), tiny.encode_pictures(batch)[order])


def test_a_text_has_the_same_feature_in_any_company(tiny):
    texts = [f"a {word} thing" for word in "red green blue small large round".split()]
    together = tiny.encode_texts(texts)
    alone = np.concatenate([tiny.encode_texts([text]) for text in texts])
    assert np.array_equal(together, alone)


def test_texts_of_one_word_apart_differ(tiny):
    red, blue = tiny.encode_texts(["a red ring", "a blue ring"])
    assert not np.allclose(red, blue)


def test_pictures_are_normalised_as_open_clip_does(tiny):
    from PIL import Image

    config = open_clip.get_model_preprocess_cfg(tiny.model)
    transform = open_clip.image_transform(
        config["size"], is_train=False, mean=config["mean"], std=config["std"]
    )
    batch = pictures(4)
    with torch.inference_mode():
        theirs = tiny.model.encode_image(
            torch.stack([transform(Image.fromarray(picture)) for picture in batch])
        )
    np.testing.assert_allclose(tiny.encode_pictures(batch), theirs.numpy(), atol=1e-5)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint saved by open_clip: it stands in for downloaded weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    torch.save({"state_dict": open_clip.create_model("ViT-S-32-alt").state_dict()}, path)
    return path


def test_a_checkpoint_file_gives_its_own_weights(checkpoint):
    ours = load("ViT-S-32-alt", checkpoint=checkpoint)
    theirs = open_clip.create_model("ViT-S-32-alt", pretrained=str(checkpoint))
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.model.state_dict()[name], value), name
    assert ours.width == theirs.visual.output_dim
    assert len(ours.weights_sha256) == 64


def test_bfloat16_features_agree_with_float32(checkpoint):
    exact = load("ViT-S-32-alt", checkpoint=checkpoint).encode_pictures(pictures(4, 224))
    fast = load("ViT-S-32-alt", checkpoint=checkpoint, precision="bfloat16")
    rough = fast.encode_pictures(pictures(4, 224))
    cosine = (exact * rough).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(rough, axis=1)
    assert cosine.min() > 0.999


def test_a_checkpoint_of_another_model_is_refused(checkpoint):
    with pytest.raises(BackboneError, match="is not a checkpoint of ViT-S-16-alt"):
        load("ViT-S-16-alt", checkpoint=checkpoint)


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(b"no weights at all")
    with pytest.raises(BackboneError, match="is not a checkpoint of ViT-S-32-alt"):
        load("ViT-S-32-alt", checkpoint=path)


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(BackboneError, match="nothing.pt does not exist"):
        load("ViT-B-32", checkpoint=tmp_path / "nothing.pt")


def test_missing_weights_end_in_an_error_that_names_the_ways_out(monkeypatch):
    def fail(*_args, **_kwargs):
        raise FileNotFoundError("no network")

    monkeypatch.setattr(open_clip, "download_pretrained", fail)
    config = ExtractConfig()
    with pytest.raises(BackboneError) as caught:
        load(config.backbone, tag=config.tag)
    message = str(caught.value)
    for way_out in ("cache folder", "--pretrained FILE", "--backbone tiny", config.backbone):
        assert way_out in message


def test_unknown_names_are_refused_before_anything_is_fetched():
    with pytest.raises(BackboneError, match="no model 'ViT-B-33'"):
        load("ViT-B-33", tag="openai")
    with pytest.raises(BackboneError, match="no pretrained tag 'opnai'.*openai"):
        load("ViT-B-32", tag="opnai")
    with pytest.raises(BackboneError, match="needs --pretrained"):
        load("ViT-B-32")


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(BackboneError, match="torch sees"):
        load(device="cuda:99")
    with pytest.raises(BackboneError, match="unknown device"):
        load(device="gpu")


def test_auto_precision_is_bfloat16_only_where_it_is_native(monkeypatch):
    cpu = torch.device("cpu")
    reported = {"avx512_bf16": True, "cpu_name": "any"}
    # Older versions of PyTorch have no such function.
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: reported, raising=False)
    assert pick_precision("auto", cpu) == "bfloat16"
    reported["avx512_bf16"] = False
    assert pick_precision("auto", cpu) == "float32"
    assert pick_precision("float16", cpu) == "float16"


@pytest.mark.parametrize(("flags", "is_native"), [("avx2 avx512_bf16", True), ("avx2", False)])
def test_an_older_pytorch_reads_the_processor_file(monkeypatch, tmp_path, flags, is_native):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    cpu_info = tmp_path / "cpuinfo"
    cpu_info.write_text(f"model name\t: any\nflags\t\t: fpu {flags} sse\n")
    assert has_native_bfloat16(cpu_info) is is_native
    assert not has_native_bfloat16(tmp_path / "missing")
