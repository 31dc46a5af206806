"""Draw figures, format texts and write report pages; only the command line prints beside this.

In: the plain data of `analyses` and `studies`. Out: text for a terminal (`text`), figures
(`plots`), pages (`html`) and progress bars (`progress`).
"""
