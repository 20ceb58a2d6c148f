"""A real facility on one machine: `single_user.up` for yourself, `multi_user.up_for` for several users."""
