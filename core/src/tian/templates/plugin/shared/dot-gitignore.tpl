__pycache__/
*.egg-info/
.venv/
build/
dist/
runs/
