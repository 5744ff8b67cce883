"""py for faces: functions of yours."""

from encsel.loading.functions import function_family

ENCODER = function_family("face")
