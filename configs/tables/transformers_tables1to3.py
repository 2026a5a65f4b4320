"""Tables 1 to 3 of Babaali and Shayaninasab (2023): seven transformers fine-tuned on IEMOCAP, sessions 1-3 / 4 / 5.

    python -m data_prep.iemocap --source <IEMOCAP_full_release> --output data/iemocap_raw --tokenizer bert-base-uncased
    python -m mmer_jax.table --table=configs/tables/transformers_tables1to3.py

Table 4 is the table of mmer_jax.classifiers, from the five-fold runs of BERT, wav2vec 2.0 and VideoMAE. The published
losses are those of their last epochs and not comparable; runtimes of ours are in each run's timing.jsonl.
"""

CLASSES = ('neutral', 'happy', 'angry', 'sad')
TABLES = {
    'Table 1, text': {'BERT': ('bert', 0.68), 'DistilBERT': ('distilbert', 0.65), 'RoBERTa': ('roberta', 0.65)},
    'Table 2, speech': {'wav2vec 2.0': ('wav2vec2', 0.68), 'HuBERT': ('hubert', 0.625), 'AST': ('ast', 0.61)},
    'Table 3, video': {'VideoMAE': ('videomae', 0.38)},
}


def get_table() -> dict:
    rows = [
        {
            'label': label,
            'config': f'configs/{name}_iemocap.py',
            'variant': 'split',
            'published': {'accuracy': accuracy},
            'group': group,
        }
        for group, members in TABLES.items()
        for label, (name, accuracy) in members.items()
    ]
    return {
        'title': 'Pretrained transformers on IEMOCAP',
        'source': 'Babaali and Shayaninasab (2023), Tables 1 to 3',
        'metrics': 'classification',
        'classes': CLASSES,
        'columns': {'accuracy': 'Accuracy', 'uar': 'UAR', 'macro_f1': 'Macro F1', 'loss': 'Loss'},
        'rows': rows,
    }
