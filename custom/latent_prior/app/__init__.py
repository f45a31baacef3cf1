"""The app of `latent-prior app`: a page in the browser that starts runs, shows them, and keeps their history.

Runs are processes of their own, started as the same commands that a terminal takes (queue.py). What the page shows is
read from their folders and logs (progress.py, results.py, history.py), so it does not depend on an open tab. Only
page.py, run_view.py and server.py need gradio, the extra `app`.
"""
