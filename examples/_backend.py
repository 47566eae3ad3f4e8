"""Chooses Keras's backend for a script, before Keras is imported."""

from crl_keras_command import BACKENDS as BACKENDS
from crl_keras_command import choose as choose
from crl_keras_command import missing as missing
from crl_keras_command import prepare

prepare()
