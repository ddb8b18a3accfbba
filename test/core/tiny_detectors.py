# SPDX-License-Identifier: Apache-2.0
"""Folders as `occany download` fetches them, with tiny random models and small vocabularies."""

import json
import string

import torch

BERT_WORDS = "car traffic sign road sky bike concrete barrier motor ##cycl ##ist tree".split()


def randomise(model, spread=1.0):
    """Weights with which answers differ from query to query, unlike freshly initialised ones."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                scale = spread / parameter[0].numel() ** 0.5
                parameter.normal_(0, scale, generator=generator)
            else:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def save_bert_tokenizer(folder):
    """A vocabulary with the ids of the real one for [CLS], [SEP] and the full stop."""
    from transformers import BertTokenizer

    tokens = [f"[unused{index}]" for index in range(1013)]
    special = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: "."}
    for index, token in special.items():
        tokens[index] = token
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(tokens + BERT_WORDS) + "\n")
    words = {token: index for index, token in enumerate(tokens + BERT_WORDS)}
    BertTokenizer(vocab=words).save_pretrained(folder)
    return len(words)


def save_grounding_dino(folder, **settings):
    import transformers

    backbone = transformers.SwinConfig(
        embed_dim=12,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        image_size=64,
        out_indices=[2, 3, 4],
    )
    text = transformers.BertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        vocab_size=save_bert_tokenizer(folder),
    )
    sizes = {
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "num_queries": 20,
        "max_text_len": 40,
    }
    config = transformers.GroundingDinoConfig(
        backbone_config=backbone, text_config=text, **sizes | settings
    )
    randomise(transformers.GroundingDinoForObjectDetection(config)).save_pretrained(folder)
    return folder


def save_clip_tokenizer(folder):
    """CLIP's kind of vocabulary: letters, letters that end a word, no merges."""
    from transformers import CLIPTokenizer

    letters = list(string.ascii_lowercase + string.digits + ".-_")
    tokens = ["!", *letters, *(f"{letter}</w>" for letter in letters)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    words = {token: index for index, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(vocab=words, merges=[]).save_pretrained(folder)
    return words


def save_sam3(folder):
    import transformers
    from transformers.models.sam3 import Sam3Config, Sam3VisionConfig, Sam3ViTConfig

    words = save_clip_tokenizer(folder)
    backbone = Sam3ViTConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=112,
        window_size=4,
        global_attn_indexes=[1],
        pretrain_image_size=56,
    )
    text = {
        "model_type": "clip_text_model",
        "vocab_size": len(words),
        "bos_token_id": words["<|startoftext|>"],
        "eos_token_id": words["<|endoftext|>"],
        "pad_token_id": words["<|endoftext|>"],
        "hidden_size": 16,
        "intermediate_size": 32,
        "projection_dim": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
    }
    part = {"hidden_size": 32, "num_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = Sam3Config(
        vision_config=Sam3VisionConfig(backbone_config=backbone, fpn_hidden_size=32),
        text_config=text,
        geometry_encoder_config=part,
        detr_encoder_config=part,
        detr_decoder_config=part | {"num_queries": 10},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 2},
    )
    randomise(transformers.Sam3Model(config)).save_pretrained(folder)
    return folder
