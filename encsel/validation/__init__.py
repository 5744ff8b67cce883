"""The workflow `validate`: stages that measure everything, and the result they make."""
