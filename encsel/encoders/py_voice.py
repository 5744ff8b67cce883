"""py for voices: functions of yours."""

from encsel.loading.functions import function_family

ENCODER = function_family("voice")
