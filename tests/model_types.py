"""Model types that encsel reads, each made small on disk: accepted, and equal to the bare model called by hand?

`PYTHONPATH=tests python -m model_types` prints the table of all of them; tests/test_model_types.py runs it.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from encsel.core import SAMPLING_RATE, Modality, Runtime
from encsel.loading.checkpoint import save_tiny
from encsel.loading.registry import checked_spec, open_encoders

SIDE = 32
VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
       "image_size": SIDE, "patch_size": 8, "initializer_range": 0.2}  # fmt: skip
SPEECH = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
          "conv_dim": (8,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
          "initializer_range": 0.15}  # fmt: skip
XVECTOR = {"tdnn_dim": (16, 16, 16, 16, 24), "xvector_output_dim": 24}
TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 99}

Pooled = Callable[[Any], Any]
"""From what the model returns to (samples, dim)."""


def pooler(output: Any) -> Any:
    return output.pooler_output.flatten(1)


def class_token(output: Any) -> Any:
    return output.last_hidden_state[:, 0]


def mean(output: Any) -> Any:
    hidden = output.last_hidden_state
    return hidden.mean((2, 3)) if hidden.ndim == 4 else hidden.mean(1)


def embeddings(output: Any) -> Any:
    return output.embeddings


def images(name: str = "ViTImageProcessorPil", **settings: Any) -> Any:
    import transformers

    return getattr(transformers, name)(**{"size": {"height": SIDE, "width": SIDE}, **settings})


def cropped(name: str) -> Any:
    return images(name, size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})


def clips(name: str = "Wav2Vec2FeatureExtractor", **settings: Any) -> Any:
    import transformers

    return getattr(transformers, name)(**settings)


@dataclass(frozen=True)
class Row:
    """One model type: how it is saved, and how it is called by hand.

    Attributes:
        saved: class of transformers that is saved; `bare`, if given, the class that is called.
        family: that the checkpoint, named alone, is read by.
    """

    label: str
    modality: Modality
    saved: str
    config: Mapping[str, Any]
    pooled: Pooled
    processor: Callable[[], Any]
    family: str = "hf"
    bare: str = ""
    inputs: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> str:
        """Save a small model, and return what names it: its folder alone."""
        save_tiny(folder, self.saved, self.config, self.processor())
        return str(folder)

    def by_hand(self, folder: Path, sample: Any) -> Any:
        """(dim,) of the bare model."""
        import torch
        import transformers

        model = getattr(transformers, self.bare or self.saved).from_pretrained(folder).eval()
        processor = self.processor()
        if self.modality == "face":
            given = processor(images=sample, return_tensors="pt")
        else:
            import soxr

            rate = processor.sampling_rate
            sound = sample if rate == SAMPLING_RATE else soxr.resample(sample, SAMPLING_RATE, rate, quality="HQ")
            given = processor(sound, sampling_rate=rate, return_tensors="pt", **self.inputs)
        model = model.get_encoder() if model.config.is_encoder_decoder else model
        with torch.inference_mode():
            return self.pooled(model(**given)).numpy()[0]


@dataclass(frozen=True)
class Foreign:
    """A model of another library, from a function that saves it and returns its path and the bare model."""

    label: str
    modality: Modality
    family: str
    save: Callable[[Path], tuple[Path, Callable[[Any], Any]]]
    _bare: dict[Path, Callable[[Any], Any]] = field(default_factory=dict)

    def write(self, folder: Path) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        path, self._bare[folder] = self.save(folder)
        return str(path)

    def by_hand(self, folder: Path, sample: Any) -> Any:
        return self._bare[folder](sample)


def of_timm() -> list[Foreign]:
    from test_timm import ROWS as WRITERS

    def saved(write: Callable[[Path], tuple[str, Callable[[Any], Any]]], folder: Path) -> tuple[Path, Any]:
        spec, bare = write(folder)
        return Path(spec.partition(":")[2]), bare

    return [Foreign(f"timm: {label}", "face", "timm", partial(saved, write)) for label, write in WRITERS]


def onnx_face(folder: Path) -> tuple[Path, Callable[[Any], Any]]:
    """A graph of 112 x 112 pixels, and onnxruntime on pixels scaled by hand."""
    import onnx
    import onnxruntime
    import PIL.Image

    from encsel.loading.onnx_tiny import tiny_projection

    onnx.save(tiny_projection(), folder / "face.onnx")

    def bare(image: Any) -> Any:
        session = onnxruntime.InferenceSession(str(folder / "face.onnx"))
        small = PIL.Image.fromarray(image).resize((112, 112), PIL.Image.Resampling.BILINEAR)
        given = ((np.asarray(small, np.float32) - 127.5) / 127.5).transpose(2, 0, 1)[None]
        return session.run(None, {session.get_inputs()[0].name: given})[0].reshape(-1)

    return folder / "face.onnx", bare


def onnx_voice(folder: Path) -> tuple[Path, Callable[[Any], Any]]:
    """A graph of 80 filterbanks, and onnxruntime on those that kaldi-native-fbank computes by hand."""
    import kaldi_native_fbank as knf
    import onnx
    import onnxruntime

    from encsel.loading.onnx_tiny import tiny_fbank_model

    onnx.save(tiny_fbank_model(), folder / "voice.onnx")

    def bare(clip: Any) -> Any:
        session = onnxruntime.InferenceSession(str(folder / "voice.onnx"))
        options = knf.FbankOptions()
        options.frame_opts.dither, options.frame_opts.window_type, options.mel_opts.num_bins = 0.0, "hamming", 80
        fbank = knf.OnlineFbank(options)
        fbank.accept_waveform(SAMPLING_RATE, clip * 32768)
        features = np.array([fbank.get_frame(i) for i in range(fbank.num_frames_ready)], np.float32)
        given = (features - features.mean(0))[None]
        return session.run(None, {session.get_inputs()[0].name: given})[0].reshape(-1)

    return folder / "voice.onnx", bare


def every_row() -> list[Row | Foreign]:
    files = [Foreign("onnx: pixels", "face", "onnx", onnx_face), Foreign("onnx: fbank", "voice", "onnx", onnx_voice)]
    return [*ROWS, *of_timm(), *files]


def whisper(output: Any) -> Any:
    """The mean over one second: half of its 100 frames."""
    return output.last_hidden_state[:, :50].mean(1)


def face(label: str, saved: str, config: Mapping[str, Any], pooled: Pooled = pooler, **more: Any) -> Row:
    return Row(label, "face", saved, config, pooled, more.pop("processor", images), **more)


def voice(label: str, saved: str, config: Mapping[str, Any], pooled: Pooled = mean, **more: Any) -> Row:
    return Row(label, "voice", saved, config, pooled, more.pop("processor", clips), **more)


STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "initializer_range": 0.2}
SWIN = {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4, "image_size": SIDE, "patch_size": 4,
        "initializer_range": 0.2}  # fmt: skip
PLAIN = {key: value for key, value in VIT.items() if key != "initializer_range"}
CLIP = {"vision_config": {**PLAIN, "projection_dim": 24}, "text_config": TEXT, "projection_dim": 24}

ROWS: Sequence[Row] = (
    face("vit", "ViTModel", VIT),
    face("vit, a classifier", "ViTForImageClassification", VIT, class_token, bare="ViTModel"),
    face("deit", "DeiTModel", VIT, processor=lambda: cropped("DeiTImageProcessorPil")),
    face("beit", "BeitModel", VIT, processor=lambda: images("BeitImageProcessorPil")),
    face("data2vec-vision", "Data2VecVisionModel", VIT, class_token, processor=lambda: images("BeitImageProcessorPil")),
    face("dinov2", "Dinov2Model", {**VIT, "mlp_ratio": 2}, family="dinov2",
         processor=lambda: cropped("BitImageProcessorPil")),
    face("dinov2 with registers", "Dinov2WithRegistersModel", {**VIT, "mlp_ratio": 2},
         processor=lambda: cropped("BitImageProcessorPil")),
    face("dinov3, vit", "DINOv3ViTModel", VIT, processor=lambda: images("ViTImageProcessorPil")),
    face("dinov3, convnext", "DINOv3ConvNextModel", STAGES),
    face("ijepa", "IJepaModel", VIT, mean),
    face("vit-mae", "ViTMAEModel", {**VIT, "mask_ratio": 0.0}, class_token),
    face("vit-msn", "ViTMSNModel", VIT, class_token),
    face("clip", "CLIPModel", CLIP, lambda o: o.image_embeds, bare="CLIPVisionModelWithProjection", family="clip",
         processor=lambda: cropped("CLIPImageProcessorPil")),
    face("clip, vision alone", "CLIPVisionModel", PLAIN,
         processor=lambda: cropped("CLIPImageProcessorPil")),
    face("chinese-clip", "ChineseCLIPModel", CLIP, bare="ChineseCLIPVisionModel",
         processor=lambda: cropped("ChineseCLIPImageProcessorPil")),
    face("metaclip-2", "MetaClip2Model", CLIP, lambda o: o.image_embeds, bare="MetaClip2VisionModelWithProjection",
         processor=lambda: cropped("CLIPImageProcessorPil")),
    face("siglip", "SiglipVisionModel", VIT, family="siglip", processor=lambda: images("SiglipImageProcessorPil")),
    face("siglip 2", "Siglip2VisionModel", {**VIT, "num_patches": 16},
         processor=lambda: images("Siglip2ImageProcessorPil", size=None, patch_size=8, max_num_patches=16)),
    face("convnext", "ConvNextModel", STAGES,
         processor=lambda: images("ConvNextImageProcessorPil", size={"shortest_edge": 384})),
    face("convnext v2", "ConvNextV2Model", STAGES),
    face("resnet", "ResNetModel", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}),
    face("regnet", "RegNetModel", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "groups_width": 8}),
    face("swin", "SwinModel", SWIN),
    face("swin v2", "Swinv2Model", SWIN),
    face("poolformer", "PoolFormerModel", {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}, mean),
    face("mobilevit", "MobileViTModel", {"hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 8, 16, 24, 32, 48],
                                        "initializer_range": 0.3}),
    face("focalnet", "FocalNetModel", {"embed_dim": 8, "depths": [1, 1], "focal_levels": [2, 2],
                                       "focal_windows": [3, 3], "image_size": SIDE, "hidden_sizes": [8, 16]}),
    face("hiera", "HieraModel", {"embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2], "image_size": [64, 64],
                                 "num_query_pool": 1, "masked_unit_size": [8, 8], "query_stride": [2, 2]},
         processor=lambda: images(size={"height": 64, "width": 64})),
    face("bit", "BitModel", {"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 1], "num_groups": 4}),
    face("pvt v2", "PvtV2Model", {"image_size": SIDE, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1],
                                  "num_attention_heads": [1, 2, 2, 2]}, mean),
    face("mobilenet v2", "MobileNetV2Model", {"depth_multiplier": 0.35, "image_size": SIDE}),
    voice("wavlm", "WavLMModel", SPEECH, family="wavlm"),
    voice("wavlm, speaker head", "WavLMForXVector", {**SPEECH, **XVECTOR}, embeddings, family="wavlm-sv"),
    voice("hubert", "HubertModel", SPEECH, family="hubert"),
    voice("wav2vec2", "Wav2Vec2Model", SPEECH, family="wav2vec2"),
    voice("wav2vec2, speaker head", "Wav2Vec2ForXVector", {**SPEECH, **XVECTOR}, embeddings),
    voice("wav2vec2-conformer", "Wav2Vec2ConformerModel", SPEECH),
    voice("unispeech", "UniSpeechModel", SPEECH),
    voice("unispeech-sat", "UniSpeechSatModel", SPEECH),
    voice("unispeech-sat, speaker head", "UniSpeechSatForXVector", {**SPEECH, **XVECTOR}, embeddings),
    voice("data2vec-audio", "Data2VecAudioModel", {**SPEECH, "conv_pos_kernel_size": 3, "num_conv_pos_embeddings": 2}),
    voice("wav2vec2-bert", "Wav2Vec2BertModel", {**SPEECH, "feature_projection_input_dim": 160},
          processor=lambda: clips("SeamlessM4TFeatureExtractor")),
    voice("sew", "SEWModel", {**SPEECH, "squeeze_factor": 2, "conv_dim": (8,) * 13}),
    voice("sew-d", "SEWDModel", {**SPEECH, "squeeze_factor": 2, "conv_dim": (8,) * 13}),
    voice("whisper", "WhisperModel", {"d_model": 32, "encoder_layers": 2, "decoder_layers": 1,
                                      "encoder_attention_heads": 4, "decoder_attention_heads": 4,
                                      "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
                                      "vocab_size": 99, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
                                      "decoder_start_token_id": 1, "init_std": 0.2},
          whisper, processor=lambda: clips("WhisperFeatureExtractor")),
    voice("audio spectrogram transformer", "ASTModel", {**VIT, "patch_size": 16, "max_length": 128}, pooler,
          processor=lambda: clips("ASTFeatureExtractor", max_length=128)),
    voice("clap", "ClapModel",
          {"audio_config": {"patch_embeds_hidden_size": 16, "depths": [1, 1], "num_attention_heads": [2, 2],
                            "hidden_size": 32, "projection_dim": 24}, "text_config": TEXT, "projection_dim": 24},
          lambda o: o.audio_embeds, bare="ClapAudioModelWithProjection",
          processor=lambda: clips("ClapFeatureExtractor", truncation="rand_trunc", padding="repeatpad")),
)  # fmt: skip


def samples() -> dict[Modality, Any]:
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:48, :64]
    picture = np.stack([4 * rows, 3 * columns, 2 * rows + columns], axis=2) + rng.integers(0, 40, (48, 64, 3))
    seconds = np.arange(SAMPLING_RATE) / SAMPLING_RATE
    sound = sum(np.sin(2 * np.pi * f * seconds) / f for f in (140, 280, 700)) * 60 + 0.1 * rng.normal(
        size=SAMPLING_RATE
    )
    return {"face": np.clip(picture, 0, 255).astype(np.uint8), "voice": (sound / 2).astype(np.float32)}


@dataclass(frozen=True)
class Outcome:
    """What became of a row: the family and dimension, and the largest difference as a fraction of the largest value."""

    row: Row | Foreign
    family: str
    dim: int
    difference: float
    reason: str = ""

    @property
    def is_equal(self) -> bool:
        return not self.reason and self.difference <= 1e-5


def outcome(row: Row | Foreign, folder: Path) -> Outcome:
    """Save a small model, name its folder or file alone, and compare with the bare model."""
    sample = samples()[row.modality]
    try:
        spec = checked_spec(row.write(folder), row.modality)
        (encoder,) = open_encoders(spec, Runtime(device="cpu", offline=True))
        model = encoder.load()
        (found,) = model.embed([model.prepare(sample)])[:, 0]
        expected = row.by_hand(folder, sample)
    except Exception as error:
        return Outcome(row, "", 0, np.nan, f"{type(error).__name__}: {error}")
    if expected.shape != found.shape:
        return Outcome(row, encoder.family, encoder.dim, np.nan, f"{found.shape}, by hand {expected.shape}")
    return Outcome(row, encoder.family, encoder.dim, float(np.abs(found - expected).max() / np.abs(expected).max()))


def main() -> int:
    """Print the table; 1 if a row is not accepted, or not equal to the bare model."""
    print("| model type | modality | read by | values | largest difference |\n| --- | --- | --- | --- | --- |")
    outcomes = []
    started = time.monotonic()
    for row in every_row():
        with tempfile.TemporaryDirectory() as folder:
            o = outcome(row, Path(folder) / "tiny")
        outcomes.append(o)
        result = o.reason or format(o.difference, ".1e")
        print(f"| {row.label} | {row.modality} | {o.family or '-'} | {o.dim} | {result} |")
    n = sum(o.is_equal for o in outcomes)
    print(f"\n{n} of {len(outcomes)} are read and equal the bare model ({time.monotonic() - started:.0f} s).")
    return 0 if n == len(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
