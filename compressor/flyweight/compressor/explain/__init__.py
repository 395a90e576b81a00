"""Why a variant is what it is: its layers, the answers that changed, and where its time goes."""
