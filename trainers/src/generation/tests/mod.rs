mod average;
mod beam;
mod bleu;
