-- The section offices that enquiries name. The source has no office number, and the longest name is
-- twice as long as an account number may be: the number is made from a hash of the name.
SELECT DISTINCT
    'DFI-' || substr(encode(sha256("CLIENT_OFFICE_NAME"), 'hex'), 1, 12) AS accountnumber,
    CASE "CLIENT_OFFICE_NAME"
        WHEN '?' THEN 'Office Not Recorded'
        ELSE initcap("CLIENT_OFFICE_NAME")
    END AS name,
    'Other' AS customertypecode
FROM enquiry
