"""What tests share: the scripted model server and the toy benchmark."""
