"""Checkpoints fill a model exactly, whichever file they come from, and nothing random stays."""

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from mlalign.extract.encode.weights import fill, no_random_weights

MODEL = "ViT-S-32-alt"


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(0)
    return {
        name: value.clone() for name, value in open_clip.create_model(MODEL).state_dict().items()
    }


def new_model():
    with no_random_weights():
        return open_clip.create_model(MODEL, load_weights=False).requires_grad_(False)


def write(weights, path, form):
    match form:
        case "plain":
            torch.save(weights, path)
        case "wrapped":
            torch.save({"epoch": 3, "state_dict": weights}, path)
        case "parallel":
            torch.save({f"module.{name}": value for name, value in weights.items()}, path)
        case "legacy":
            torch.save(weights, path, _use_new_zipfile_serialization=False)
        case "safetensors":
            save_file(weights, path)


@pytest.mark.parametrize("form", ["plain", "wrapped", "parallel", "safetensors", "legacy"])
def test_every_weight_is_the_files(weights, tmp_path, form):
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pt")
    write(weights, path, form)
    model = new_model()
    fill(model, path, dtype=torch.float32)
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_the_model_takes_the_dtype_that_is_asked_for(weights, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(weights, path)
    model = new_model()
    fill(model, path, dtype=torch.bfloat16)
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name].to(torch.bfloat16)), name


def test_without_the_text_tower_the_pictures_features_are_the_same(weights, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(weights, path)
    whole, image_only = new_model().eval(), new_model().eval()
    fill(whole, path, dtype=torch.float32)
    fill(image_only, path, dtype=torch.float32, with_text=False)
    pictures = torch.randn(2, 3, 224, 224)
    assert torch.equal(whole.encode_image(pictures), image_only.encode_image(pictures))
    assert sum(p.numel() for p in image_only.parameters()) < sum(
        p.numel() for p in whole.parameters()
    )


def test_a_checkpoint_that_lacks_a_weight_is_refused(weights, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({name: value for name, value in weights.items() if "conv1" not in name}, path)
    with pytest.raises(RuntimeError, match="conv1"):
        fill(new_model(), path, dtype=torch.float32)


def test_a_larger_image_tower_is_not_taken_for_its_smaller_part(weights, tmp_path):
    path = tmp_path / "weights.pt"
    deeper = {"visual.transformer.resblocks.99.ln_1.weight": torch.ones(384)}
    torch.save(weights | deeper, path)
    with pytest.raises(RuntimeError, match="resblocks.99"):
        fill(new_model(), path, dtype=torch.float32)


def test_position_embeddings_of_another_size_are_resized_by_open_clip(weights, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(weights, path)
    with no_random_weights():
        larger = open_clip.create_model(MODEL, load_weights=False, force_image_size=256)
    fill(larger, path, dtype=torch.float32)
    theirs = open_clip.create_model(MODEL, pretrained=str(path), force_image_size=256)
    for name, value in theirs.state_dict().items():
        assert torch.equal(larger.state_dict()[name], value), name
