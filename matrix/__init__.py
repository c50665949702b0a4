"""Its packages, in the order in which a run goes through them:

=================  ==============================================================================
``spec``           what is to be tried: tables of a spec, releases of the index (``index``)
``pipeline``       the steps of a cell, and how the end of one (a timeout, say) becomes an outcome
``plan``           the cells of a profile, the keys of their steps, what they need and cost
``environments``   locks and virtualenvs, made by uv
``run``            the steps performed, by children with limits (``machine``), in ``probe``
``store``          what each step left behind: observations, under keys
``checkpoint``     files of a quantized model, read independently
``repair``         known defects mended, in a copy of a checkpoint
``checks``         what observations and files say: findings
``description``    what a user's files say of themselves, for ``inspect``
``diagnose``       which known issue a failure is, by its log and findings
``judge``          all of them folded into cells, and cells into a table of verdicts
``search``         what is to blame: which side, release or pins
``history``        what earlier runs came to, and what changed since
``report``         the table as pages and data
``cli``            the command ``matrix``; what comes from outside is read through ``untrusted``
=================  ==============================================================================
"""
