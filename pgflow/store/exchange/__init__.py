"""What workflows do to one another: crossings, inquiries, deliveries.

Nobody locks the row of another workflow to send it something. What is sent is inserted; whichever worker comes next
delivers it under the receiver's lock.

    signal, cancel, end of a child:  inserted --deliver--> numbered in the receiver's mailbox; a sleeping one is woken
                                         --> in the memory of its worker --> taken (with the listen's row)
                                                                         '-> set aside: its body does not fit
    child:    crossing --> dispatched; its end is asked for by an inquiry, again whenever the mailbox has grown
    old signals:  taken or dropped --`signal_keep` later--> removed, by one worker at a time (`sweeping.py`)

Ids of what a workflow does are derived from where its step stands (`pgflow/history/identity.py`), so that doing it
again after a crash changes nothing.
"""
