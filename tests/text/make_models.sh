#!/bin/sh
# Trains the models of this folder anew: tests/text/make_models.sh, with Debian's sentencepiece 0.1.97.
set -e
cd "$(dirname "$0")"

train() {
    name=$1
    shift
    spm_train --input=corpus.txt --model_prefix="$name" --num_threads=1 --minloglevel=2 "$@"
    rm "$name.vocab"
}

# As language models have it: every byte a piece, text left as it is, one space before it.
train bpe_bytes --model_type=bpe --vocab_size=400 --byte_fallback --character_coverage=0.99 \
    --normalization_rule_name=identity --remove_extra_whitespaces=false --split_digits \
    --allow_whitespace_only_pieces

# Normalized text, single spaces, unknown characters, a self-test. The rules are a few of nmt_nfkc.
train unigram_rules --model_type=unigram --vocab_size=250 --normalization_rule_tsv=rules.tsv \
    --self_test_sample_size=4 --pad_id=3

# No space before the text; symbols that are never split, and some that never come out of a text.
train bpe_symbols --model_type=bpe --vocab_size=400 --byte_fallback --character_coverage=0.99 \
    --normalization_rule_name=identity --remove_extra_whitespaces=false --add_dummy_prefix=false \
    --user_defined_symbols='<tool>,<tools>,▁▁,▁▁▁▁,def,▁the▁' \
    --control_symbols='<turn>,<turn|end>,[end]less,[end],▁ctl' --unk_surface=' (?) '

# No space before the text, but single ones in it; characters.
train char_spaces --model_type=char --vocab_size=60 --character_coverage=0.98 \
    --normalization_rule_name=identity --add_dummy_prefix=false
