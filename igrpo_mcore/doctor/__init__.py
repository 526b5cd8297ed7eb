"""``igrpo doctor``: what is here, which way a run would go, and what keeps it from starting."""
