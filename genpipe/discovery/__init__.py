"""What counting alone finds in text without labels: words, templates of sentences, trees."""
