"""What a recipe needs before anything is downloaded: parameters, memory per GPU, tokens per step."""
