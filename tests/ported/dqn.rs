use nn::{Module, Sequential, VarBuilder};

/// The values of three actions.
pub fn values(vb: VarBuilder) -> Result<Sequential> {
    Ok(nn::seq()
        .add(nn::linear(6, 16, vb.pp("first"))?)
        .add(nn::Activation::Silu)
        .add(nn::linear(16, 3, vb.pp("second"))?))
}

/// States [N, 6] in which the actions [N] were taken. The values of the states after them are an older
/// network's: data, as a target network's are.
pub fn loss(vb: VarBuilder, states: &Tensor, actions: &Tensor, _train: bool) -> Result<Tensor> {
    let network = values(vb)?;
    let taken = gather(&network.forward(states)?, &actions.unsqueeze(1)?, 1)?.squeeze(1)?;
    let rewards = states.narrow(1, 0, 1)?.squeeze(1)?;
    let older = states.narrow(1, 3, 3)?.max(1)?;
    let target = (rewards + (older * 0.5)?)?;
    nn::loss::huber(&taken, &target, 5.0)
}
