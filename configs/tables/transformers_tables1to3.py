r"""Tables 1 to 3 of Babaali and Shayaninasab (2023): seven transformers fine-tuned on IEMOCAP, sessions 1-3 / 4 / 5.

    export MMER_PRETRAINED=~/mmer_weights
    for name in bert-base-uncased distilbert-base-uncased roberta-base wav2vec2-base hubert-base ast-audioset \
      videomae-base-finetuned-kinetics; do
      python -m data_prep.convert_weights huggingface --source <CHECKPOINTS>/$name --output $name; done
    python -m data_prep.iemocap --source <IEMOCAP_full_release> --output data/iemocap_raw --tokenizer bert-base-uncased
    python -m data_prep.iemocap --source <IEMOCAP_full_release> --output data/iemocap_roberta \
      --tokenizer roberta-base --modalities text
    python -m mmer_jax.table --table=configs/tables/transformers_tables1to3.py

<CHECKPOINTS> holds the folders of Hugging Face under these names; configs/encoders.py says of which repositories they
are. The ids of RoBERTa's tokenizer are of their own, so its records are too; DistilBERT's are those of BERT.

Table 4 is the table of mmer_jax.classifiers, from the five-fold runs of BERT, wav2vec 2.0 and VideoMAE.
"""

CLASSES = ('neutral', 'happy', 'angry', 'sad')
TABLES = {  # label -> (start of the config's name, published accuracy, published loss)
    'Table 1, text': {
        'BERT': ('bert', 0.68, 1.19),
        'DistilBERT': ('distilbert', 0.65, 0.91),
        'RoBERTa': ('roberta', 0.65, 1.48),
    },
    'Table 2, speech': {
        'wav2vec 2.0': ('wav2vec2', 0.68, 0.95),
        'HuBERT': ('hubert', 0.625, 1.07),
        'AST': ('ast', 0.61, 3.07),
    },
    'Table 3, video': {'VideoMAE': ('videomae', 0.38, 1.32)},
}
NOTES = (
    'The paper does not say at which epoch its losses were measured; ours are of the epoch that validation chose.',
    'Runtimes printed in the paper, whose unit is not stated: BERT 4.28, DistilBERT 2.22, RoBERTa 4.32, wav2vec 2.0 '
    "90.60, HuBERT 73.84, AST none, VideoMAE 629.72. Ours, in seconds, are in each run's timing.jsonl.",
)


def get_table() -> dict:
    rows = [
        {
            'label': label,
            'config': f'configs/{name}_iemocap.py',
            'variant': 'split',
            'published': {'accuracy': accuracy, 'loss': loss},
            'group': group,
        }
        for group, members in TABLES.items()
        for label, (name, accuracy, loss) in members.items()
    ]
    return {
        'title': 'Pretrained transformers on IEMOCAP',
        'source': 'Babaali and Shayaninasab (2023), Tables 1 to 3',
        'dataset': 'iemocap',
        'metrics': 'classification',
        'classes': CLASSES,
        'columns': {'accuracy': 'Accuracy', 'uar': 'UAR', 'macro_f1': 'Macro F1', 'loss': 'Loss'},
        'rows': rows,
        'notes': NOTES,
    }
