"""What every evaluation shares: flags, jobs, launches, results, tables, the contact sheet, and the loop over them."""
