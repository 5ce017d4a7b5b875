"""Attribution methods of other libraries, behind our contract."""
