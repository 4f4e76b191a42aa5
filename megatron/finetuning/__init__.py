"""Layer 5: data sets as prompts, in the files that multitask finetuning and evaluation read."""
