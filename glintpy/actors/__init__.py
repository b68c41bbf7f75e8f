"""The master and the servers, as pykka actors whose mailbox is their socket. pykka lives here only."""
