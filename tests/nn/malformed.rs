//! What does not fit is refused: which argument, what was expected, what was there.

use adahessian::nn::{
    self, Linear, Module, ModuleT, index, loss, ops, pooling, resize, rotary_emb,
};
use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use testing::assert_says;

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F32, &Device::Cpu).expect("zeros")
}

fn ints(values: &[i64]) -> Tensor {
    Tensor::new(values, &Device::Cpu).expect("integers")
}

#[test]
fn maps() -> Result<()> {
    let map = Linear::new(zeros(&[3, 4]), None);
    assert_says(map.forward(&zeros(&[2, 5])), &["linear map", "4", "5"]);
    assert_says(map.forward(&zeros(&[2, 0])), &["linear map"]);
    let wide = Linear::new(zeros(&[3, 4]), Some(zeros(&[2])));
    assert_says(wide.forward(&zeros(&[2, 4])), &["bias", "[3]", "[2]"]);
    let grouped = Linear::with_groups(zeros(&[3, 4]), None, 2);
    assert_says(
        grouped.forward(&zeros(&[2, 8])),
        &["groups", "3 outputs", "2"],
    );
    let vb = nn::VarBuilder::zeros(DType::F32, &Device::Cpu);
    assert_says(
        nn::linear_grouped(4, 6, 4, vb.clone()),
        &["groups", "4 inputs", "6 outputs"],
    );
    assert_says(nn::linear_grouped(4, 6, 0, vb), &["groups", "got 0"]);
    let table = nn::Embedding::new(zeros(&[5, 3]), 3);
    assert_says(
        table.forward(&ints(&[0, 5])),
        &["id of an embedding", "0 to 4", "5"],
    );
    assert_says(table.forward(&ints(&[-1])), &["0 to 4", "-1", "vocabulary"]);
    let none = Tensor::new(&[u32::MAX], &Device::Cpu)?;
    assert_says(table.forward(&none), &["0 to 4", "for none", "mask"]);
    assert_says(table.forward(&zeros(&[2])), &["integers", "F32"]);
    let narrow = nn::Embedding::new(zeros(&[5, 3]), 4);
    assert_says(narrow.forward(&ints(&[0])), &["[entries, 4]", "[5, 3]"]);
    let prelu = nn::PReLU::new(zeros(&[3]), false);
    assert_says(
        prelu.forward(&zeros(&[2, 4])),
        &["PReLU", "[N, 3, ..]", "[2, 4]"],
    );
    let three = nn::PReLU::new(zeros(&[3]), true);
    assert_says(three.forward(&zeros(&[3])), &["slopes", "one", "got 3"]);
    let of_one_channel = nn::PReLU::new(zeros(&[1]), false);
    assert_eq!(of_one_channel.forward(&zeros(&[5]))?.dims(), [5]);
    Ok(())
}

#[test]
fn norms() -> Result<()> {
    let norm = nn::LayerNorm::new(zeros(&[4]), zeros(&[4]), 1e-5);
    assert_says(norm.forward(&zeros(&[2, 3])), &["layer norm", "[3]", "[4]"]);
    let norm = nn::RmsNorm::new(zeros(&[4]), 1e-5);
    assert_says(norm.forward(&zeros(&[2, 3])), &["RMS norm", "[3]", "[4]"]);
    let group =
        |channels, groups| nn::GroupNorm::new(zeros(&[4]), zeros(&[4]), channels, groups, 1e-5);
    assert_says(group(4, 3), &["groups of a group norm", "4 channels", "3"]);
    assert_says(group(4, 0), &["groups of a group norm", "0"]);
    assert_says(
        group(6, 2),
        &["weight and bias of a group norm", "[6]", "[4]"],
    );
    assert_says(
        group(4, 2)?.forward(&zeros(&[2, 4])),
        &["input of a group norm", "[2, 4]"],
    );
    assert_says(
        group(4, 2)?.forward(&zeros(&[2, 3, 2])),
        &["[N, 4, ..]", "[2, 3, 2]"],
    );
    // Nothing is normalised to nothing.
    let nothing = group(4, 2)?.forward(&zeros(&[0, 4, 2]))?;
    assert_eq!(nothing.dims(), [0, 4, 2]);
    let batch = |eps, momentum| {
        let [mean, variance, weight, bias] = [1, 2, 3, 4].map(|_| zeros(&[4]));
        nn::BatchNorm::new_with_momentum(4, mean, variance, weight, bias, eps, momentum)
    };
    assert_says(batch(-1.0, 0.1), &["batch norm", "eps at least 0", "-1"]);
    assert_says(batch(1e-5, 1.5), &["momentum between 0 and 1", "1.5"]);
    assert_says(batch(f64::NAN, 0.1), &["NaN"]);
    let norm = batch(1e-5, 0.1)?;
    for train in [true, false] {
        assert_says(
            norm.forward_t(&zeros(&[2, 3, 2]), train),
            &["[N, 4, ..]", "[2, 3, 2]"],
        );
    }
    // No statistics of nothing, but no images are normalised to none.
    assert_says(norm.forward_t(&zeros(&[0, 4]), true), &["no size of 0"]);
    assert_eq!(norm.forward_t(&zeros(&[0, 4, 2]), false)?.dims(), [0, 4, 2]);
    let wrong = nn::BatchNorm::new_no_bias(4, zeros(&[4]), zeros(&[3]), 1e-5);
    assert_says(wrong, &["statistics", "[4]", "[3]"]);
    Ok(())
}

#[test]
fn convolutions() {
    let conv = nn::Conv1d::new(zeros(&[2, 3, 2]), None, Default::default());
    assert_says(conv.forward(&zeros(&[1, 4, 5])), &["convolution", "3", "4"]);
    assert_says(
        conv.forward(&zeros(&[3, 5])),
        &["conv1d", "[N, C, L]", "[3, 5]"],
    );
    assert_says(
        conv.forward(&zeros(&[1, 3, 1])),
        &["at least as large as the kernel"],
    );
    let conv = nn::Conv2d::new(zeros(&[2, 3, 2, 2]), Some(zeros(&[3])), Default::default());
    assert_says(
        conv.forward(&zeros(&[1, 3, 4, 4])),
        &["bias of a convolution", "[2]", "[3]"],
    );
    let vb = nn::VarBuilder::zeros(DType::F32, &Device::Cpu);
    let three = nn::Conv2dConfig {
        groups: 3,
        ..Default::default()
    };
    assert_says(
        nn::conv2d(4, 6, 3, three, vb),
        &["groups of a convolution", "4 channels", "3"],
    );
    let transpose = |padding, output_padding| {
        let config = nn::ConvTranspose2dConfig {
            padding,
            output_padding,
            ..Default::default()
        };
        nn::ConvTranspose2d::new(zeros(&[3, 2, 2, 2]), None, config)
    };
    let x = zeros(&[1, 3, 2, 2]);
    assert_says(
        transpose(0, 0).forward(&zeros(&[1, 4, 2, 2])),
        &["transposed convolution", "[1, 4, 2, 2]"],
    );
    assert_says(
        transpose(0, 1).forward(&x),
        &["output padding", "below the stride"],
    );
    assert_says(
        transpose(3, 0).forward(&x),
        &["padding of a transposed convolution"],
    );
    let transpose = nn::ConvTranspose1d::new(zeros(&[3, 2]), None, Default::default());
    assert_says(
        transpose.forward(&zeros(&[1, 3, 2])),
        &["conv_transpose1d", "[3, 2]"],
    );
}

#[test]
fn images() {
    let image = zeros(&[1, 2, 4, 4]);
    assert_says(nn::max_pool2d(&image, 5), &["pooling", "4x4"]);
    assert_says(
        nn::max_pool2d(&image, (5, 2)),
        &["pooling", "a window that fits", "(5, 2)"],
    );
    assert_says(nn::avg_pool2d(&image, 0), &["pooling"]);
    assert_says(
        pooling::avg_pool2d_with_stride(&image, (1, 2), (0, 1)),
        &["stride at least 1"],
    );
    assert_says(nn::max_pool2d(&zeros(&[2, 4]), 2), &["image", "[2, 4]"]);
    assert_says(
        nn::global_avg_pool2d(&zeros(&[1, 2, 0, 4])),
        &["at least one pixel"],
    );
    assert_says(
        nn::adaptive_avg_pool2d(&image, (0, 1)),
        &["adaptive pooling"],
    );
    assert_says(nn::adaptive_avg_pool2d(&zeros(&[3]), 1), &["image", "[3]"]);
    assert_says(resize::upsample_nearest1d(&image, 3), &["[N, C, L]"]);
    assert_says(resize::upsample_nearest2d(&image, 0, 3), &["no size of 0"]);
    assert_says(
        resize::upsample_bilinear2d(&zeros(&[4, 4]), 2, 3, true),
        &["[N, C, H, W]"],
    );
    assert_says(
        ops::pixel_shuffle(&image, 2),
        &["pixel_shuffle", "[1, 2, 4, 4]"],
    );
    assert_says(ops::pixel_unshuffle(&image, 3), &["pixel_unshuffle"]);
    assert_says(ops::pixel_unshuffle(&image, 0), &["pixel_unshuffle"]);
    assert_says(
        ops::replication_pad2d(&zeros(&[1, 2, 0, 4]), 2),
        &["replication_pad2d"],
    );
}

#[test]
fn indices() {
    let x = zeros(&[2, 3]);
    let index =
        |values: &[i64], shape: (usize, usize)| ints(values).reshape(shape).expect("a shape");
    assert_says(
        index::gather(&x, &index(&[0, 3], (2, 1)), 1),
        &["index", "0 to 3, excluded", "3"],
    );
    assert_says(
        index::gather(&x, &index(&[0, -1], (2, 1)), 1),
        &["index", "-1"],
    );
    assert_says(
        index::gather(&x, &index(&[0, 1, 2], (3, 1)), 1),
        &["fit [2, 3]", "[3, 1]"],
    );
    assert_says(index::gather(&x, &x, 1), &["integers", "F32"]);
    assert_says(index::gather(&x, &index(&[0], (1, 1)), 2), &["gather"]);
    let one = index(&[0], (1, 1));
    assert_says(
        index::scatter_add(&x, &one, &zeros(&[1, 2]), 1),
        &["source of a scatter", "[1, 1]"],
    );
    assert_says(
        index::scatter(&x, &one, &zeros(&[2, 1]), 1),
        &["source of a scatter", "[2, 1]"],
    );
}

#[test]
fn attention_and_positions() -> Result<()> {
    let vb = nn::VarBuilder::zeros(DType::F32, &Device::Cpu);
    let heads = |num_heads, num_kv_heads| {
        let config = nn::MultiHeadAttentionConfig {
            num_kv_heads,
            causal: true,
            ..nn::MultiHeadAttentionConfig::new(num_heads)
        };
        nn::multi_head_attention(6, config, vb.clone())
    };
    for (all, kv) in [(4, 4), (3, 2), (2, 0), (0, 0)] {
        assert_says(heads(all, kv), &["heads of an attention", "6"]);
    }
    let attention = heads(3, 1)?;
    let x = zeros(&[2, 4, 6]);
    assert_says(
        attention.forward(&zeros(&[4, 6])),
        &["[B, S, in]", "[4, 2]"],
    );
    assert_says(
        attention.attend(&x, &zeros(&[2, 3, 6]), None, false),
        &["causal", "4", "3"],
    );
    let mask = zeros(&[2, 3]);
    assert_says(
        attention.attend(&x, &x, Some(&mask), false),
        &["key mask", "[2, 4]", "[2, 3]"],
    );
    let map = || Linear::new(zeros(&[6, 6]), None);
    let maps = [map(), Linear::new(zeros(&[3, 6]), None), map(), map()];
    let config = nn::MultiHeadAttentionConfig::new(3);
    assert_says(
        nn::MultiHeadAttention::new(maps, config),
        &["maps of an attention"],
    );
    let q = zeros(&[1, 3, 4, 2]);
    assert_says(
        ops::sdpa(
            &q,
            &zeros(&[1, 2, 4, 2]),
            &zeros(&[1, 2, 4, 2]),
            None,
            false,
            1.0,
            1.0,
        ),
        &["kv heads"],
    );
    for cap in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let q = zeros(&[1, 2, 4, 2]);
        assert_says(
            ops::sdpa(&q, &q, &q, None, false, 1.0, cap),
            &["softcapping", "above 0"],
        );
    }
    let (cos, sin) = (zeros(&[3, 1]), zeros(&[4, 1]));
    assert_says(
        rotary_emb::rope(&q, &cos, &sin),
        &["rotary positions", "[3, 1]"],
    );
    assert_says(
        rotary_emb::rope_i(&zeros(&[1, 3, 4, 3]), &sin, &sin),
        &["the last even"],
    );
    Ok(())
}

#[test]
fn losses() {
    let logits = zeros(&[2, 3]);
    assert_says(
        loss::cross_entropy(&logits, &ints(&[0, 3])),
        &["target", "0 to 2", "3 in row 1"],
    );
    assert_says(
        loss::cross_entropy(&zeros(&[2, 3, 1]), &ints(&[0, 1])),
        &["logits", "[2, 3, 1]"],
    );
    assert_says(
        loss::nll(&logits, &ints(&[0])),
        &["negative log likelihood", "[1]"],
    );
    assert_says(loss::nll(&logits, &ints(&[0, 4])), &["index", "4"]);
    let one = zeros(&[2, 1]);
    assert_says(
        loss::huber(&logits, &one, 1.0),
        &["huber loss", "one shape", "[2, 1]"],
    );
    assert_says(
        loss::binary_cross_entropy_with_logit(&logits, &one),
        &["binary cross entropy"],
    );
}
