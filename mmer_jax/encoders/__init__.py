"""Encoders: one modality in, features out. `encoder(x, mask, train=...) -> (features, mask)`, then `encoder.pool`."""

from mmer_jax.encoders.bert import Bert, DistilBert, Roberta
from mmer_jax.encoders.conv_videomae import ConvVideoMae
from mmer_jax.encoders.erann import Erann
from mmer_jax.encoders.frame_cnn import FrameCnn
from mmer_jax.encoders.googlenet import GoogLeNet
from mmer_jax.encoders.i3d import I3D
from mmer_jax.encoders.mfcc_cnn import MfccCnn
from mmer_jax.encoders.mlp import VectorEncoder
from mmer_jax.encoders.protocol import Encoder, StagedEncoder
from mmer_jax.encoders.resnet import ResNet18
from mmer_jax.encoders.resnext3d import ResNeXt3D
from mmer_jax.encoders.simple3d import Simple3D
from mmer_jax.encoders.tdnn import Tdnn
from mmer_jax.encoders.vgg import Vgg16
from mmer_jax.encoders.vit import Ast, VideoMae, Vit
from mmer_jax.encoders.wav2vec2 import Hubert, Wav2Vec2

ENCODERS: dict[str, type[Encoder]] = {
    'ast': Ast,
    'bert': Bert,
    'conv_videomae': ConvVideoMae,
    'distilbert': DistilBert,
    'erann': Erann,
    'frame_cnn': FrameCnn,
    'googlenet': GoogLeNet,
    'hubert': Hubert,
    'i3d': I3D,
    'mfcc_cnn': MfccCnn,
    'resnet18': ResNet18,
    'resnext3d': ResNeXt3D,
    'roberta': Roberta,
    'simple3d': Simple3D,
    'tdnn': Tdnn,
    'vector_encoder': VectorEncoder,
    'vgg16': Vgg16,
    'videomae': VideoMae,
    'vit': Vit,
    'wav2vec2': Wav2Vec2,
}

__all__ = [
    'ENCODERS',
    'I3D',
    'Ast',
    'Bert',
    'ConvVideoMae',
    'DistilBert',
    'Encoder',
    'Erann',
    'FrameCnn',
    'GoogLeNet',
    'Hubert',
    'MfccCnn',
    'ResNeXt3D',
    'ResNet18',
    'Roberta',
    'Simple3D',
    'StagedEncoder',
    'Tdnn',
    'VectorEncoder',
    'Vgg16',
    'VideoMae',
    'Vit',
    'Wav2Vec2',
]
