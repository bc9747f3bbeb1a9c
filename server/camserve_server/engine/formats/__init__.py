"""One reader per accepted picture format; these modules run only inside imaging workers."""
