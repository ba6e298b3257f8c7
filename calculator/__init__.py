"""What a GLM-4 model is made of and how many bytes everything takes. Never imports torch."""
